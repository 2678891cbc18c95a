package io.lora4j.kernels;

/**
 * What a device is.
 *
 * @param isa the tier in use; {@link Isa#AVX512} at most
 * @param bestIsa the best tier that CPU, operating system and build allow
 * @param bf16Isa the tier that runs the products of {@link Compute#BF16}: {@code isa} where no instruction helps
 * @param int8Isa the tier that runs the products of {@link Compute#INT8}: {@code isa} where no instruction helps
 * @param logicalCpus CPUs that this process may run on (affinity mask, cgroup quota)
 * @param cpuName the processor's brand string
 * @param memoryBytes physical memory, or the cgroup's limit where that is lower
 */
public record DeviceInfo(
        Isa isa, Isa bestIsa, Isa bf16Isa, Isa int8Isa, int logicalCpus, String cpuName, long memoryBytes) {}
