package io.lora4j.cli;

import io.lora4j.formats.ModelWriter;
import io.lora4j.formats.StoredValues;
import io.lora4j.formats.TensorReport;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.train.Option;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import io.lora4j.train.Sources;
import io.lora4j.train.TrainOptions;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;

/** {@code lora4j quantize}: a model in a quantized format. */
final class QuantizeCommand extends TableCommand {
    private static final Option<Conversion.Format> TO = Option.ofEnum(
            "to",
            Conversion.Format.class,
            null,
            "The format. nf4, fp4, int8: bitsandbytes' layout, a folder for transformers; the linear layers of the blocks are"
                    + " quantized, embedding, output head, norms and biases stay. q4_0 to q6_k and gguf_*: a GGUF file for"
                    + " llama.cpp; matrices are quantized, norms and biases F32, the output head (or the embedding where it is"
                    + " tied) Q6_K; where rows are no whole blocks of 256, Q4_K becomes Q5_0 and Q6_K Q8_0, as llama-quantize has it."
                    + " float32, float16, bfloat16: a dense folder.");

    QuantizeCommand() {
        super(
                new OptionTable(
                        "quantize",
                        List.of(
                                TrainOptions.MODEL_NAME_OR_PATH,
                                TO,
                                Conversion.OUTPUT,
                                Conversion.OVERWRITE,
                                Conversion.BLOCK_SIZE,
                                Conversion.DOUBLE_QUANT,
                                Conversion.SKIP_MODULES,
                                Conversion.MAX_ERROR,
                                TrainOptions.THREADS)),
                "Writes a model in a quantized format, tensor by tensor, and says how much each one changes.");
    }

    @Override
    int run(Settings settings, boolean json, Console console) throws IOException {
        Path dir = Sources.model(settings.get(TrainOptions.MODEL_NAME_OR_PATH)).dir();
        Path output = Conversion.output(settings, dir);
        Conversion.Format format = settings.get(TO);
        int threads = settings.get(TrainOptions.THREADS);
        ModelWriter.Check check = (folder, tensors) -> Conversion.requireClose(settings, tensors);
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device, threads);
                StoredValues values = StoredValues.open(dir, queue)) {
            List<TensorReport> tensors = Conversion.write(settings, format, false, output, values, dir, queue, check);
            if (json) {
                console.json(Conversion.report(output, format, tensors));
            } else {
                Conversion.print(output, tensors, console);
            }
        }
        return 0;
    }
}
