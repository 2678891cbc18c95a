package io.lora4j.cli;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.GgufAdapter;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.train.Option;
import io.lora4j.train.OptionException;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import io.lora4j.train.Sources;
import io.lora4j.train.TrainOptions;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** {@code lora4j export}: an adapter in another program's format. */
final class ExportCommand extends TableCommand {
    /** What an adapter can be exported to. */
    enum Target {
        /** A llama.cpp LoRA adapter. */
        GGUF
    }

    private static final Option<Path> ADAPTER = Option.ofPath(
                    "adapter_name_or_path", "Adapter in PEFT's layout: a folder, or a name in the Hugging Face cache.")
            .alias("adapter");
    private static final Option<Target> TO = Option.ofEnum(
            "to",
            Target.class,
            Target.GGUF,
            "The format. gguf: a file for llama.cpp's --lora, in float32. Values keep their bits but for alpha_pattern, and"
                    + " rsLoRA with rank_pattern, whose factors are multiplied into lora_B.");
    private static final Option<Path> OUTPUT =
            Option.ofPath("output_file", "The file to write.").alias("output");
    private static final Option<Boolean> OVERWRITE =
            Option.ofBoolean("overwrite", false, "Replace the output file if it is there.");
    private static final Option<Path> MODEL = Option.ofPath(
                    TrainOptions.MODEL_NAME_OR_PATH.name(),
                    "The base model, for its config.json: a folder, or a name in the Hugging Face cache.")
            .alias("model")
            .otherwise("the adapter's base_model_name_or_path");

    ExportCommand() {
        super(
                new OptionTable("export", List.of(ADAPTER, TO, OUTPUT, OVERWRITE, MODEL)),
                "Writes an adapter as a file for llama.cpp, which applies it to the base model as a GGUF file of any"
                        + " quantization. The adapter is only read.");
    }

    @Override
    int run(Settings settings, boolean json, Console console) throws IOException {
        Path dir = Sources.adapter(settings.get(ADAPTER));
        Path output = settings.get(OUTPUT);
        if (Files.exists(output) && !settings.get(OVERWRITE)) {
            throw new OptionException(
                    "option output_file: " + output + " is there already; choose another, or --overwrite");
        }
        try (Arena arena = Arena.ofConfined()) {
            PeftAdapter adapter = PeftAdapter.read(dir, arena);
            ModelConfig model = ModelConfig.read(base(settings, adapter.config()));
            adapter.requireFits(dir.toString(), model.modules());
            Map<String, Double> folded = GgufAdapter.write(output, adapter, model, dir.toString());
            Map<String, Object> report = new LinkedHashMap<>();
            report.put("file", output.toString());
            report.put("bytes", Files.size(output));
            report.put("modules", adapter.modules().size());
            report.put("folded", folded);
            if (json) {
                console.json(report);
            } else {
                console.out()
                        .printf(
                                "%s: %d modules, %s%n",
                                output, adapter.modules().size(), Text.bytes(Files.size(output)));
                folded.forEach((module, factor) ->
                        console.out().println("lora_B of " + module + " is multiplied by " + Text.number(factor)));
            }
        }
        return 0;
    }

    private static Path base(Settings settings, AdapterConfig config) throws IOException {
        if (settings.isSet(MODEL)) {
            return Sources.model(settings.get(MODEL)).dir();
        }
        if (config.baseModel() == null) {
            throw new OptionException("option " + MODEL.name() + " is missing, and the adapter names no base model");
        }
        return Sources.model(Path.of(config.baseModel())).dir();
    }
}
