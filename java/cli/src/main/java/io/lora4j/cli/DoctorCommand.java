package io.lora4j.cli;

import io.lora4j.kernels.Device;
import io.lora4j.kernels.DeviceInfo;
import io.lora4j.kernels.Lora4jException;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import java.lang.management.ManagementFactory;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** {@code lora4j doctor}: what this machine offers and which native library is in use. */
final class DoctorCommand extends TableCommand {
    DoctorCommand() {
        super(
                new OptionTable("doctor", List.of()),
                "Shows the CPU, the instruction set in use, cores, memory, and the native library that was found.");
    }

    @Override
    int run(Settings settings, boolean json, Console console) {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("lora4j", Main.version());
        boolean working = false;
        boolean capped = false;
        try (Device device = Device.cpu()) {
            DeviceInfo info = device.info();
            report.put("native_library", Device.library().path());
            report.put("native_build", Device.library().build());
            report.put("cpu", info.cpuName());
            report.put("isa", name(info.isa()));
            report.put("isa_best", name(info.bestIsa()));
            report.put("isa_bf16", name(info.bf16Isa()));
            report.put("isa_int8", name(info.int8Isa()));
            report.put("cores", info.logicalCpus());
            report.put("memory_bytes", info.memoryBytes());
            working = true;
            capped = info.isa() != info.bestIsa();
        } catch (UnsatisfiedLinkError | Lora4jException e) {
            report.put("native_error", String.valueOf(e.getMessage()));
        }
        report.put("java", Runtime.version().toString());
        report.put("java_heap_max_bytes", Runtime.getRuntime().maxMemory());
        report.put("os", System.getProperty("os.name") + " " + System.getProperty("os.version"));
        report.put("java_options", ManagementFactory.getRuntimeMXBean().getInputArguments());
        int status = working ? 0 : 1;
        if (json) {
            console.json(report);
            return status;
        }
        report.forEach((key, value) ->
                console.out().printf("%-20s %s%n", key, key.endsWith("_bytes") ? Text.bytes((Long) value) : value));
        if (capped) {
            console.out()
                    .println("The tier in use is capped by LORA4J_MAX_ISA; results are the same bits, only slower.");
        }
        return status;
    }

    private static String name(Enum<?> isa) {
        return isa.name().toLowerCase(Locale.ROOT);
    }
}
