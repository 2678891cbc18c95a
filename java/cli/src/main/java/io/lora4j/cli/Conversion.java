package io.lora4j.cli;

import io.lora4j.formats.BitsAndBytes;
import io.lora4j.formats.Checkpoint;
import io.lora4j.formats.GgmlType;
import io.lora4j.formats.GgufModelWriter;
import io.lora4j.formats.ModelModule;
import io.lora4j.formats.ModelValues;
import io.lora4j.formats.ModelWriter;
import io.lora4j.formats.StoredValues;
import io.lora4j.formats.StoredWeight;
import io.lora4j.formats.TensorReport;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Part;
import io.lora4j.kernels.Queue;
import io.lora4j.kernels.Scheme;
import io.lora4j.kernels.Tensor;
import io.lora4j.train.Option;
import io.lora4j.train.OptionException;
import io.lora4j.train.Settings;
import io.lora4j.train.TrainException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** What {@code quantize} and {@code merge} share: the formats a model is written in, and the report of its tensors. */
final class Conversion {
    /** A format of a model. */
    enum Format {
        NF4,
        FP4,
        INT8,
        Q4_0,
        Q4_1,
        Q5_0,
        Q8_0,
        Q4_K,
        Q6_K,
        GGUF_F32,
        GGUF_F16,
        GGUF_BF16,
        FLOAT32,
        FLOAT16,
        BFLOAT16;

        /** Returns whether the model is one GGUF file, not a folder. */
        boolean isGguf() {
            return ordinal() >= Q4_0.ordinal() && ordinal() <= GGUF_BF16.ordinal();
        }

        boolean isBitsAndBytes() {
            return ordinal() <= INT8.ordinal();
        }

        boolean isDense() {
            return ordinal() >= FLOAT32.ordinal();
        }

        GgmlType ggmlType() {
            return GgmlType.valueOf(name().replace("GGUF_", ""));
        }

        DType dtype() {
            return switch (this) {
                case FLOAT32 -> DType.F32;
                case FLOAT16 -> DType.F16;
                default -> DType.BF16;
            };
        }
    }

    static final Option<Path> OUTPUT = Option.ofPath(
                    "output", "What to write: a folder, or for GGUF a file. It appears whole or not at all.")
            .alias("output_dir", "output_file");
    static final Option<Boolean> OVERWRITE = Option.ofBoolean(
            "overwrite", false, "Replace the output if it is there. The base model is never replaced.");
    static final Option<Integer> BLOCK_SIZE = Option.of(
            "blocksize", "INT", 64, "Values that share a scale in nf4 and fp4: a power of two, 32 to 4096.", given -> {
                int size = Integer.parseInt(given.toString());
                if (size < 32 || size > 4096 || Integer.bitCount(size) != 1) {
                    throw new IllegalArgumentException("a power of two from 32 to 4096");
                }
                return size;
            });
    static final Option<Boolean> DOUBLE_QUANT = Option.ofBoolean(
            "bnb_4bit_use_double_quant", false, "Quantize the scales of nf4 and fp4 too: 0.4 bits a value less.");
    static final Option<List<String>> SKIP_MODULES = Option.of(
            "llm_int8_skip_modules",
            "NAMES",
            List.of(),
            "Modules that nf4, fp4 and int8 leave dense, by the ends of their names; lm_head always is one of them.",
            given -> given instanceof List<?> list
                    ? list.stream().map(Object::toString).toList()
                    : List.of(given.toString().split("[,\\s]+")));
    static final Option<Double> MAX_ERROR = Option.ofDouble(
            "max_error",
            0,
            0,
            Double.MAX_VALUE,
            false,
            "Write nothing if a tensor changes by more than this: the root mean square of the changes over that of"
                    + " the values. 0: no limit.");

    private Conversion() {}

    /** Refuses an output that is there, or that is the base model or lies in it. */
    static Path output(Settings settings, Path base) throws IOException {
        Path output = settings.get(OUTPUT);
        Path real = real(output);
        Path realBase = base.toRealPath();
        if (real.startsWith(realBase) || realBase.startsWith(real)) {
            throw new OptionException("option output: " + output + " is the base model " + base
                    + ", or lies in it or around it; the base is never written to: choose another place");
        }
        if (Files.exists(output) && !settings.get(OVERWRITE)) {
            throw new OptionException("option output: " + output + " is there already; choose another, or --overwrite");
        }
        return output;
    }

    private static Path real(Path path) throws IOException {
        Path absolute = path.toAbsolutePath().normalize();
        Path there = absolute;
        while (there != null && !Files.exists(there)) {
            there = there.getParent();
        }
        return there == null ? absolute : there.toRealPath().resolve(there.relativize(absolute));
    }

    /**
     * Writes a model in a format; the check sees it before it has its name.
     *
     * @param like whether the format is the model's own, and what each tensor is stored as is to stay
     */
    static List<TensorReport> write(
            Settings settings,
            Format format,
            boolean like,
            Path output,
            ModelValues values,
            Path source,
            Queue queue,
            ModelWriter.Check check)
            throws IOException {
        if (format.isGguf()) {
            if (!output.toString().endsWith(".gguf")) {
                throw new OptionException(
                        "option output: " + output + " is to be a GGUF file; give it a name ending in .gguf");
            }
            String name = String.valueOf(source.toRealPath().getFileName());
            GgmlType type = format.ggmlType();
            return like
                    ? GgufModelWriter.likeSource(output, values, source, type, name, queue, check)
                    : GgufModelWriter.write(output, values, source, type, name, queue, check);
        }
        if (format.isDense()) {
            return ModelWriter.dense(output, values, source, like ? null : format.dtype(), queue, check);
        }
        BitsAndBytes how = bitsAndBytes(settings, format, values);
        return like
                ? ModelWriter.likeSource(output, values, source, how, queue, check)
                : ModelWriter.bitsAndBytes(output, values, source, how, queue, check);
    }

    private static BitsAndBytes bitsAndBytes(Settings settings, Format format, ModelValues values) throws IOException {
        return new BitsAndBytes(
                BitsAndBytes.Type.valueOf(format.name()),
                settings.get(BLOCK_SIZE),
                settings.get(DOUBLE_QUANT),
                ModelWriter.torchName(values.dtype("model.embed_tokens.weight")),
                settings.get(SKIP_MODULES));
    }

    /**
     * Returns the settings with the format that a model is stored in, and its blocks and double quantization, where none is given.
     *
     * @throws OptionException if models are not written in that format
     */
    static Settings likeBase(Settings settings, Option<Format> to, Path dir, StoredValues base) throws IOException {
        if (settings.isSet(to)) {
            return settings;
        }
        if (settings.isSet(SKIP_MODULES)) {
            throw new OptionException("option " + SKIP_MODULES.name() + ": without " + to.name()
                    + " every module stays as the base has it; remove the option, or name the format");
        }
        StoredWeight stored = first(base);
        boolean gguf = Checkpoint.gguf(dir).isPresent();
        String name = stored.scheme() != Scheme.DENSE
                ? stored.scheme().name().replace("GGUF_", "").replace("LLM_", "")
                : gguf
                        ? "GGUF_" + stored.values().dtype()
                        : ModelWriter.torchName(stored.values().dtype());
        Format format = Stream.of(Format.values())
                .filter(f -> f.name().equalsIgnoreCase(name))
                .findFirst()
                .orElseThrow(() -> new OptionException("option " + to.name() + " is missing, and the base is stored as "
                        + stored.scheme() + ", which lora4j does not write; give one of " + to.type()));
        Settings.Builder like = settings.toBuilder().set(to, format);
        Tensor block = stored.parts().get(Part.BLOCK_SIZE);
        if (format.isBitsAndBytes() && block != null) {
            if (!settings.isSet(BLOCK_SIZE)) {
                like.set(BLOCK_SIZE, (int) block.getLong(0));
            }
            if (!settings.isSet(DOUBLE_QUANT)) {
                like.set(DOUBLE_QUANT, stored.parts().containsKey(Part.NESTED_OFFSET));
            }
        }
        return like.build();
    }

    /** Returns the first linear layer that is quantized, or the first one. */
    private static StoredWeight first(StoredValues base) throws IOException {
        List<String> linear = base.config().modules().values().stream()
                .filter(module -> module.kind() == ModelModule.Kind.LINEAR)
                .map(module -> module.name() + ".weight")
                .toList();
        for (String name : linear) {
            if (base.stored(name).scheme() != Scheme.DENSE) {
                return base.stored(name);
            }
        }
        return base.stored(linear.getFirst());
    }

    /**
     * Checks what the tensors changed by against {@link #MAX_ERROR}.
     *
     * @throws TrainException naming the worst tensor if it is too much
     */
    static void requireClose(Settings settings, List<TensorReport> tensors) {
        double limit = settings.get(MAX_ERROR);
        TensorReport worst = Collections.max(tensors, Comparator.comparingDouble(TensorReport::relativeRms));
        if (limit > 0 && worst.relativeRms() > limit) {
            throw new TrainException("tensor " + worst.name() + " as " + worst.type() + " changes by a relative RMS of "
                    + Text.number(worst.relativeRms()) + ", more than max_error " + limit
                    + "; nothing was written: choose a format with more bits, or a higher max_error");
        }
    }

    /** Returns the report as JSON has it. */
    static Map<String, Object> report(Path output, Format format, List<TensorReport> tensors) {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("output", output.toString());
        report.put("format", Option.show(format));
        report.put(
                "parameters", tensors.stream().mapToLong(TensorReport::elements).sum());
        report.put("bytes", tensors.stream().mapToLong(TensorReport::bytes).sum());
        report.put("tensors", tensors);
        return report;
    }

    static void print(Path output, List<TensorReport> tensors, Console console) {
        console.out().printf("%-42s %-9s %12s %13s %13s%n", "tensor", "stored as", "bytes", "relative RMS", "largest");
        for (TensorReport tensor : tensors) {
            console.out()
                    .printf(
                            "%-42s %-9s %12d %13s %13s%n",
                            tensor.name(),
                            tensor.type(),
                            tensor.bytes(),
                            Text.number(tensor.relativeRms()),
                            Text.number(tensor.maxError()));
        }
        long bytes = tensors.stream().mapToLong(TensorReport::bytes).sum();
        long values = tensors.stream().mapToLong(TensorReport::elements).sum();
        console.out()
                .printf(
                        "%s: %d tensors, %s, %.2f bits a value%n",
                        output, tensors.size(), Text.bytes(bytes), 8.0 * bytes / values);
    }
}
