package io.lora4j.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.ModelFolder;
import io.lora4j.formats.TensorInfo;
import io.lora4j.train.checkpoint.Sha256;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import tools.jackson.databind.JsonNode;

/** quantize, merge, unmerge and export as users run them; what the files hold, the tests of the formats say. */
class ConversionCommandsTest {
    @TempDir
    Path dir;

    @ParameterizedTest
    @ValueSource(strings = {"nf4", "q4_0"})
    void quantizeSaysWhatEachTensorChanges(String format) throws IOException {
        Path out = dir.resolve(format.equals("nf4") ? "out" : "out.gguf");
        JsonNode json = Cli.run("quantize", "--model", Cli.TINY, "--to", format, "--output", out, "--json")
                .json();
        assertThat(json.get("tensors").size()).isEqualTo(74);
        assertThat(json.get("parameters").longValue()).isEqualTo(3_542_208);
        long bytes = 0;
        for (JsonNode tensor : json.get("tensors").values()) {
            bytes += tensor.get("bytes").longValue();
            boolean dense = tensor.get("type").stringValue().matches("BF16|F32");
            assertThat(tensor.get("relativeRms").doubleValue()).isBetween(dense ? 0 : 1e-3, dense ? 0 : 0.2);
        }
        assertThat(json.get("bytes").longValue()).isEqualTo(bytes);
        Path weights = format.equals("nf4") ? out.resolve("model.safetensors") : out;
        // A header with the names, and in GGUF the tokenizer, comes on top.
        assertThat(Files.size(weights)).isBetween(bytes, bytes + 100_000);
        Cli.Result again = Cli.run("quantize", "--model", Cli.TINY, "--to", format, "--output", out);
        assertThat(again.status()).isEqualTo(2);
        assertThat(again.err()).contains("is there already", "--overwrite");
        Cli.Result text = Cli.run("quantize", "--model", Cli.TINY, "--to", format, "--output", out, "--overwrite");
        assertThat(text.status()).as(text.err()).isZero();
        assertThat(text.out()).contains("relative RMS", "bits a value");
    }

    @Test
    void mergeAndUnmerge() throws IOException {
        Map<String, String> before = MergeRecord.hashes(Cli.TINY);
        Path merged = dir.resolve("merged");
        JsonNode json = Cli.run(
                        "merge",
                        "--model",
                        Cli.TINY,
                        "--adapter",
                        trained(),
                        "--to",
                        "float32",
                        "--output",
                        merged,
                        "--json")
                .json();
        // Without rounding only the order of sums differs.
        assertThat(json.get("probe").get("largest").doubleValue()).isBetween(0.0, 1e-3);
        assertThat(json.get("probe").get("sameNextToken").intValue())
                .isEqualTo(json.get("probe").get("tokens").intValue());
        // The merged model alone is the base with its adapter, and not the base.
        assertThat(loss(merged)).isCloseTo(loss(Cli.TINY, "--adapter", trained()), within(1e-4));
        assertThat(Math.abs(loss(merged) - loss(Cli.TINY))).isGreaterThan(1e-3);

        Path back = dir.resolve("back");
        Cli.Result unmerge = Cli.run("unmerge", merged, "--output", back);
        assertThat(unmerge.status()).as(unmerge.err()).isZero();
        assertThat(MergeRecord.hashes(back)).isEqualTo(before).isEqualTo(MergeRecord.hashes(Cli.TINY));
        for (Path file : ModelFolder.files(back)) {
            assertThat(file).hasSameBinaryContentAs(Cli.TINY.resolve(file.getFileName()));
        }

        // A base that was changed since is named.
        Path changed = Cli.model(dir.resolve("changed"));
        byte[] weights = Files.readAllBytes(changed.resolve("model.safetensors"));
        weights[weights.length - 1] ^= 1;
        Files.write(changed.resolve("model.safetensors"), weights);
        Cli.Result refused = Cli.run("unmerge", merged, "--model", changed, "--output", dir.resolve("no"));
        assertThat(refused.status()).isEqualTo(1);
        assertThat(refused.err())
                .contains("model.safetensors: has the SHA-256 " + Sha256.of(changed.resolve("model.safetensors")));
        assertThat(dir.resolve("no")).doesNotExist();
        assertThat(Cli.run("unmerge", changed).err()).contains("only models that lora4j merge wrote can be unmerged");
    }

    /** Without --to the merged model is stored as its base is, blocks and double quantization alike. */
    @ParameterizedTest
    @ValueSource(strings = {"nf4", "int8", "q8_0"})
    void mergeIntoAQuantizedBase(String format) throws IOException {
        boolean gguf = format.equals("q8_0");
        Path base = dir.resolve(gguf ? "base.gguf" : "base");
        Object[] quantize = {"quantize", "--model", Cli.TINY, "--to", format, "--output", base};
        Object[] nested = {"--bnb_4bit_use_double_quant", "--blocksize", 128};
        assertThat(Cli.run(format.equals("nf4") ? with(quantize, nested) : quantize)
                        .status())
                .isZero();
        Map<String, String> before = MergeRecord.hashes(base);

        Path merged = dir.resolve(gguf ? "merged.gguf" : "merged");
        JsonNode json = Cli.run("merge", "--model", base, "--adapter", trained(), "--output", merged, "--json")
                .json();
        assertThat(json.get("format").stringValue()).isEqualTo(format);
        JsonNode of = Cli.run("inspect", base, "--json").json();
        JsonNode is = Cli.run("inspect", merged, "--json").json();
        assertThat(is.get("bytes_by_dtype")).isEqualTo(of.get("bytes_by_dtype"));
        assertThat(is.get("usable").stringValue()).startsWith("yes");
        // Rounding costs something, but less than the adapter changes.
        double largest = json.get("probe").get("largest").doubleValue();
        assertThat(largest).isBetween(1e-3, format.equals("nf4") ? 4.0 : 1.0);
        double adapted = loss(base, "--adapter", trained());
        assertThat(loss(merged)).isCloseTo(adapted, within(format.equals("nf4") ? 0.2 : 0.02));

        Path back = dir.resolve("back");
        Cli.Result unmerge = Cli.run("unmerge", merged, "--output", back);
        assertThat(unmerge.status()).as(unmerge.err()).isZero();
        assertThat(MergeRecord.hashes(base)).isEqualTo(before);
        assertThat(MergeRecord.hashes(gguf ? back.resolve("base.gguf") : back)).isEqualTo(before);
        if (gguf) {
            // A folder of it, for transformers.
            Path folder = dir.resolve("folder");
            Cli.Result dense =
                    Cli.run("merge", "--model", base, "--adapter", trained(), "--to", "float32", "--output", folder);
            assertThat(dense.status()).as(dense.err()).isZero();
            assertThat(loss(folder)).isCloseTo(adapted, within(1e-4));
        }
    }

    /** What the adapter does not change keeps its bytes, whatever they are: only two of seven matrices are quantized again. */
    @ParameterizedTest
    @ValueSource(strings = {"nf4", "fp4", "int8", "q4_0", "q4_k"})
    void mergeCopiesWhatTheAdapterDoesNotChange(String format) throws IOException {
        boolean gguf = format.startsWith("q");
        Path base = dir.resolve(gguf ? "base.gguf" : "base");
        Object[] quantize = {"quantize", "--model", Cli.TINY, "--to", format, "--output", base};
        Object[] how = {"--llm_int8_skip_modules", "down_proj"};
        assertThat(Cli.run(gguf ? quantize : with(quantize, how)).status()).isZero();
        Path merged = dir.resolve(gguf ? "merged.gguf" : "merged");
        Path adapter = Cli.GOLDEN.resolve("adapters/subset_qv");
        JsonNode json = Cli.run("merge", "--model", base, "--adapter", adapter, "--output", merged, "--json")
                .json();
        for (JsonNode tensor : json.get("tensors").values()) {
            boolean changed = tensor.get("name").stringValue().matches(".*(attn_[qv]|[qv]_proj).weight");
            assertThat(tensor.get("relativeRms").doubleValue() > 0)
                    .as(tensor.toString())
                    .isEqualTo(changed);
        }
        int same = 0;
        int different = 0;
        try (Checkpoint before = Checkpoint.open(base);
                Checkpoint after = Checkpoint.open(merged)) {
            assertThat(after.tensors().keySet()).isEqualTo(before.tensors().keySet());
            for (TensorInfo tensor : before.tensors().values()) {
                assertThat(after.tensor(tensor.name()).typeName()).isEqualTo(tensor.typeName());
                boolean equal = after.data(tensor.name()).mismatch(before.data(tensor.name())) < 0;
                boolean adapted = tensor.name().matches(".*(attn_[qv]|[qv]_proj).weight(.absmax)?|.*[qv]_proj.SCB");
                assertThat(equal).as(tensor.name()).isEqualTo(!adapted);
                same += equal ? 1 : 0;
                different += equal ? 0 : 1;
            }
        }
        assertThat(different).isEqualTo(gguf ? 16 : 32);
        assertThat(same).isGreaterThan(40);
        if (!gguf) {
            assertThat(merged.resolve("config.json")).hasSameBinaryContentAs(base.resolve("config.json"));
            Cli.Result refused = Cli.run(with(
                    new Object[] {"merge", "--model", base, "--adapter", adapter, "--output", dir.resolve("no")}, how));
            assertThat(refused.err()).contains("option llm_int8_skip_modules: without to every module stays");
        }
    }

    @Test
    void whatLosesTooMuchIsNotWritten() throws IOException {
        Path out = dir.resolve("out");
        Object[] merge = {"merge", "--model", Cli.TINY, "--adapter", trained(), "--output", out};
        Cli.Result tensor = Cli.run(with(merge, "--max_error", "1e-4"));
        assertThat(tensor.status()).isEqualTo(1);
        assertThat(tensor.err()).contains("as BF16 changes by a relative RMS of", "more than max_error 1.0E-4");
        Cli.Result logits = Cli.run(with(merge, "--max_logit_change", "1e-3"));
        assertThat(logits.status()).isEqualTo(1);
        assertThat(logits.err()).contains("the logits of", "more than max_logit_change 0.001", "nothing was written");
        Cli.Result gguf = Cli.run(
                "quantize", "--model", Cli.TINY, "--to", "q4_0", "--output", out + ".gguf", "--max_error", "0.01");
        assertThat(gguf.status()).isEqualTo(1);
        assertThat(gguf.err()).contains("as Q4_0 changes by");
        try (Stream<Path> left = Files.list(dir)) {
            assertThat(left).isEmpty();
        }
        Cli.Result enough = Cli.run(with(merge, "--max_error", "0.01", "--max_logit_change", "1"));
        assertThat(enough.status()).as(enough.err()).isZero();
        assertThat(enough.out()).contains("the most likely next token is the same at");
    }

    @Test
    void theBaseIsNeverTheOutput() throws IOException {
        Path model = Cli.model(dir.resolve("model"));
        Map<String, String> before = MergeRecord.hashes(model);
        Files.createSymbolicLink(dir.resolve("link"), model);
        for (Path output : new Path[] {model, dir.resolve("link"), model.resolve("inside"), dir}) {
            for (String command : new String[] {"merge", "quantize"}) {
                Object[] args = {command, "--model", model, "--to", "bfloat16", "--output", output, "--overwrite"};
                Cli.Result result = Cli.run(command.equals("merge") ? with(args, "--adapter", trained()) : args);
                assertThat(result.status()).isEqualTo(2);
                assertThat(result.err()).contains("the base is never written to");
            }
        }
        assertThat(MergeRecord.hashes(model)).isEqualTo(before);
    }

    @Test
    void export() throws IOException {
        Path file = dir.resolve("adapter.gguf");
        JsonNode json = Cli.run("export", "--adapter", trained(), "--model", Cli.TINY, "--output", file, "--json")
                .json();
        assertThat(json.get("modules").intValue()).isEqualTo(56);
        assertThat(json.get("folded").isEmpty()).isTrue();
        JsonNode shown = Cli.run("inspect", file, "--json").json();
        assertThat(shown.get("metadata").get("adapter.type").stringValue()).isEqualTo("lora");
        assertThat(shown.get("tensor_count").intValue()).isEqualTo(112);
        Cli.Result again = Cli.run("export", "--adapter", trained(), "--model", Cli.TINY, "--output", file);
        assertThat(again.status()).isEqualTo(2);
        assertThat(again.err()).contains("is there already");
        Cli.Result other = Cli.run(
                "export",
                "--adapter",
                Cli.ROOT.resolve("test-data/formats/adapters/plain"),
                "--model",
                Cli.TINY,
                "--output",
                dir.resolve("no.gguf"));
        assertThat(other.status()).isEqualTo(1);
        assertThat(other.err()).contains("the adapter is of another base model");
        assertThat(dir.resolve("no.gguf")).doesNotExist();
    }

    private static Path trained() {
        return Cli.GOLDEN.resolve("adapters/default");
    }

    private static Object[] with(Object[] args, Object... more) {
        return Stream.concat(Stream.of(args), Stream.of(more)).toArray();
    }

    private static org.assertj.core.data.Offset<Double> within(double value) {
        return org.assertj.core.api.Assertions.within(value);
    }

    private double loss(Path model, Object... more) throws IOException {
        Object[] args = {"eval", "--model", model, "--data", Cli.data(dir), "--json"};
        return Cli.run(with(args, more)).json().get("loss").doubleValue();
    }
}
