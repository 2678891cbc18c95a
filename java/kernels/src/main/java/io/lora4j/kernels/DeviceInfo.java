package io.lora4j.kernels;

/**
 * What a device is.
 *
 * @param isa the tier in use
 * @param bestIsa the best tier that CPU, operating system and build allow
 * @param logicalCpus CPUs that this process may run on (affinity mask, cgroup quota)
 * @param cpuName the processor's brand string
 * @param memoryBytes physical memory, or the cgroup's limit where that is lower
 */
public record DeviceInfo(Isa isa, Isa bestIsa, int logicalCpus, String cpuName, long memoryBytes) {}
