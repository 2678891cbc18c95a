package io.lora4j.train.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.lora4j.formats.FormatException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class DataFolderTest {
    @TempDir
    Path dir;

    private Path touch(String name) throws IOException {
        return Files.createFile(dir.resolve(name));
    }

    @Test
    void aFileStandsForItself() throws IOException {
        Path file = dir.resolve("any.jsonl");
        assertThat(DataFolder.train(file)).isEqualTo(file);
        assertThat(DataFolder.test(file)).isEqualTo(file);
        assertThat(DataFolder.validation(file)).isEmpty();
    }

    @Test
    void aFolderHasAFileForEachUse() throws IOException {
        assertThatThrownBy(() -> DataFolder.train(dir))
                .isInstanceOf(FormatException.class)
                .hasMessage(dir + ": is a folder without train.jsonl; expected a JSONL file, or a folder that has it");
        assertThatThrownBy(() -> DataFolder.test(dir)).hasMessageContaining("without test.jsonl and valid.jsonl");
        Path train = touch("train.jsonl");
        assertThat(DataFolder.train(dir)).isEqualTo(train);
        assertThat(DataFolder.validation(dir)).isEmpty();
        Path valid = touch("validation.jsonl");
        assertThat(DataFolder.validation(dir)).contains(valid);
        assertThat(DataFolder.test(dir)).isEqualTo(valid);
        Path test = touch("test.jsonl");
        assertThat(DataFolder.test(dir)).isEqualTo(test);
        touch("valid.jsonl");
        assertThatThrownBy(() -> DataFolder.validation(dir))
                .hasMessageContaining("has both valid.jsonl and validation.jsonl; name one with eval_file");
    }
}
