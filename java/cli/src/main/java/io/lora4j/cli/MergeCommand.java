package io.lora4j.cli;

import io.lora4j.formats.MergedValues;
import io.lora4j.formats.ModelWriter;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.formats.StoredValues;
import io.lora4j.formats.TensorReport;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.train.Option;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import io.lora4j.train.Sources;
import io.lora4j.train.TrainException;
import io.lora4j.train.TrainOptions;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** {@code lora4j merge}: a model with an adapter in its weights. */
final class MergeCommand extends TableCommand {
    private static final Option<Path> ADAPTER = Option.ofPath(
                    "adapter_name_or_path", "Adapter to merge: a folder, or a name in the Hugging Face cache.")
            .alias("adapter");
    private static final Option<Conversion.Format> TO = Option.ofEnum(
                    "to",
                    Conversion.Format.class,
                    null,
                    "The format: float32, float16 or bfloat16 for a dense folder, or any of lora4j quantize. Without it every tensor"
                            + " keeps what it is stored as, and one that the adapter does not change is copied byte for byte.")
            .otherwise("the base's own");
    private static final Option<String> PROBE_TEXT = Option.ofString(
            "probe_text",
            "The quick brown fox jumps over the lazy dog, and the little girl laughed.",
            "The logits of this text, by the base with its adapter and by the merged model, are compared at every token.");
    private static final Option<Double> MAX_LOGIT_CHANGE = Option.ofDouble(
            "max_logit_change",
            0,
            0,
            Double.MAX_VALUE,
            false,
            "Write nothing if a logit of the probe text changes by more than this. 0: no limit.");

    MergeCommand() {
        super(
                new OptionTable(
                        "merge",
                        List.of(
                                TrainOptions.MODEL_NAME_OR_PATH,
                                ADAPTER,
                                TO,
                                Conversion.OUTPUT,
                                Conversion.OVERWRITE,
                                Conversion.BLOCK_SIZE,
                                Conversion.DOUBLE_QUANT,
                                Conversion.SKIP_MODULES,
                                Conversion.MAX_ERROR,
                                PROBE_TEXT,
                                MAX_LOGIT_CHANGE,
                                TrainOptions.THREADS)),
                "Writes a model with an adapter merged into its weights, tensor by tensor, and says what rounding to the format"
                        + " changed. Base and adapter are only read; lora4j unmerge gives the base back.");
    }

    @Override
    int run(Settings settings, boolean json, Console console) throws IOException {
        Path dir = Sources.model(settings.get(TrainOptions.MODEL_NAME_OR_PATH)).dir();
        Path adapterDir = Sources.adapter(settings.get(ADAPTER));
        Path output = Conversion.output(settings, dir);
        MergeRecord record = MergeRecord.of(dir, adapterDir);
        try (Arena arena = Arena.ofShared();
                Device device = Device.cpu();
                Queue queue = Queue.create(device, settings.get(TrainOptions.THREADS))) {
            PeftAdapter adapter = PeftAdapter.read(adapterDir, arena);
            StoredValues base = StoredValues.open(dir, queue);
            try (MergedValues values = new MergedValues(base, adapter, queue)) {
                adapter.requireFits(adapterDir.toString(), values.config().modules());
                Settings all = Conversion.likeBase(settings, TO, dir, base);
                Conversion.Format format = all.get(TO);
                boolean like = !settings.isSet(TO);
                LogitProbe probe = LogitProbe.open(dir, adapterDir, settings.get(PROBE_TEXT), queue);
                LogitProbe.Change[] change = new LogitProbe.Change[1];
                ModelWriter.Check check = (merged, tensors) -> {
                    Conversion.requireClose(settings, tensors);
                    change[0] = probe.compare(merged, queue);
                    requireClose(settings, change[0]);
                    record.write(format.isGguf() ? MergeRecord.file(output) : merged.resolve(MergeRecord.FILE_NAME));
                };
                List<TensorReport> tensors = Conversion.write(all, format, like, output, values, dir, queue, check);
                if (json) {
                    Map<String, Object> report = Conversion.report(output, format, tensors);
                    report.put("probe", change[0]);
                    console.json(report);
                } else {
                    Conversion.print(output, tensors, console);
                    console.out().println(change[0].describe());
                }
            }
        }
        return 0;
    }

    private static void requireClose(Settings settings, LogitProbe.Change change) {
        double limit = settings.get(MAX_LOGIT_CHANGE);
        if (limit > 0 && change.largest() > limit) {
            throw new TrainException(change.describe() + ": more than max_logit_change " + limit
                    + "; nothing was written: choose a format with more bits, or a higher max_logit_change");
        }
    }
}
