package io.lora4j.examples;

import static org.assertj.core.api.Assertions.assertThat;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Each example, compiled and run from its source file against the built jars. */
class ExamplesTest {
    @TempDir
    private Path dir;

    @Test
    void ownLoopReachesTheBitsOfTrain() throws Exception {
        Path texts = Files.write(dir.resolve("texts.txt"), Programs.texts());
        String output = example("OwnLoop", Programs.TINY, texts, dir.resolve("own"));
        assertThat(output).contains("step 1: loss ", "step 4: loss ");

        List<String> options = List.of("--enable-native-access=ALL-UNNAMED", "-Dlora4j.cache=" + dir, "-cp");
        Programs.run(
                        Map.of(),
                        dir,
                        Programs.java(
                                options,
                                Programs.jars(),
                                "io.lora4j.cli.Main",
                                "train",
                                "--model",
                                Programs.TINY,
                                "--data",
                                Programs.rows(dir),
                                "--output_dir",
                                dir.resolve("train"),
                                "--lora_r=8",
                                "--lora_alpha=16",
                                "--lora_dropout=0.1",
                                "--per_device_train_batch_size=2",
                                "--learning_rate=2e-3",
                                "--lr_scheduler_type=cosine",
                                "--warmup_steps=1",
                                "--num_train_epochs=1"))
                .succeeded();
        assertThat(Programs.sha256(dir.resolve("own/adapter_model.safetensors")))
                .isEqualTo(Programs.sha256(dir.resolve("train/adapter_model.safetensors")));
    }

    @Test
    void ownLoopIsShort() throws Exception {
        assertThat(Files.readAllLines(source("OwnLoop"))).hasSizeLessThanOrEqualTo(60);
    }

    @Test
    void trainInJavaIsWatchedAndCancelled() throws Exception {
        String output = example("TrainInJava", Programs.TINY, Programs.rows(dir), dir.resolve("out"));
        Matcher end = Pattern.compile("cancelled after step (\\d+)").matcher(output);
        assertThat(end.find()).as(output).isTrue();
        String last = end.group(1);
        assertThat(Integer.parseInt(last)).isBetween(3, 49);
        assertThat(output)
                .contains("parameters to train", "step 1: loss ", "step 2: perplexity ", "saved checkpoint-2")
                .contains("saved checkpoint-" + last);
        assertThat(dir.resolve("out/checkpoint-" + last)).isDirectory();
    }

    @Test
    void openBlasAndTheKernelsShareBuffers() throws Exception {
        Matcher difference = Pattern.compile("relative difference (\\S+)").matcher(example("OpenBlasBuffers"));
        assertThat(difference.find()).isTrue();
        assertThat(Double.parseDouble(difference.group(1))).isBetween(1e-9, 1e-6);
    }

    private String example(String name, Object... args) throws Exception {
        List<String> options = List.of(
                "--enable-native-access=ALL-UNNAMED",
                "-Duser.language=" + Locale.ENGLISH.getLanguage(),
                "-Dlora4j.cache=" + dir,
                "-Dorg.bytedeco.javacpp.cachedir=" + dir.resolve("javacpp"),
                "-cp",
                Programs.jars(),
                source(name).toString());
        return Programs.run(Map.of(), dir, Programs.java(options, args)).succeeded();
    }

    private static Path source(String name) {
        return Programs.ROOT.resolve("java/examples/src/main/java/io/lora4j/examples/" + name + ".java");
    }
}
