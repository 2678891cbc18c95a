package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import tools.jackson.databind.JsonNode;

class DoctorCommandTest {
    @Test
    void saysWhatIsThere() {
        JsonNode json = Cli.run("doctor", "--json").json();
        assertThat(Files.exists(Path.of(json.get("native_library").stringValue())))
                .isTrue();
        assertThat(json.get("native_build").stringValue()).contains("lora4j", "ABI", "ref");
        assertThat(json.get("isa").stringValue()).isIn("ref", "avx2", "avx512", "amx");
        assertThat(json.get("cores").intValue()).isEqualTo(Runtime.getRuntime().availableProcessors());
        assertThat(json.get("memory_bytes").longValue()).isGreaterThan(1L << 28);
        assertThat(json.get("cpu").stringValue()).isNotBlank();

        Cli.Result text = Cli.run("doctor");
        assertThat(text.status()).isZero();
        assertThat(text.out()).contains("native_library ", "isa ", "cores ", "memory_bytes ", "iB");
    }
}
