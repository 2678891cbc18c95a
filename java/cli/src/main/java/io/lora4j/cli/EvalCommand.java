package io.lora4j.cli;

import io.lora4j.train.ChatOptions;
import io.lora4j.train.LoadOptions;
import io.lora4j.train.Option;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import io.lora4j.train.TrainOptions;
import io.lora4j.train.data.DataFolder;
import io.lora4j.train.data.Dataset;
import io.lora4j.train.data.PackingStrategy;
import io.lora4j.train.data.RowEncoder;
import io.lora4j.train.data.RowOptions;
import io.lora4j.train.model.BatchLoss;
import io.lora4j.train.model.Evaluator;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Clock;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** {@code lora4j eval}: loss, perplexity and token accuracy on a file, with and without an adapter. */
final class EvalCommand extends TableCommand {
    private static final Option<Path> ADAPTER = Option.ofPath(
                    "adapter_name_or_path",
                    "Adapter to evaluate beside the base: a folder, or a name in the Hugging Face cache.")
            .otherwise("none")
            .alias("adapter");
    private static final Option<Path> DATA = Option.ofPath(
                    "eval_file",
                    "JSONL file: text, prompt and completion, or messages. Of a folder test.jsonl is taken, or else"
                            + " valid.jsonl (or validation.jsonl).")
            .alias("data");
    private static final Option<Integer> BATCH_SIZE = Option.ofInt(
            "per_device_eval_batch_size", 8, 1, "Rows that are computed together; the result does not depend on it.");

    EvalCommand() {
        super(
                new OptionTable(
                        "eval",
                        List.of(
                                TrainOptions.MODEL_NAME_OR_PATH,
                                LoadOptions.LOAD_IN_4BIT,
                                LoadOptions.BNB_4BIT_QUANT_TYPE,
                                LoadOptions.BNB_4BIT_USE_DOUBLE_QUANT,
                                ADAPTER,
                                DATA,
                                BATCH_SIZE,
                                TrainOptions.DATASET_TEXT_FIELD,
                                TrainOptions.MAX_LENGTH,
                                TrainOptions.ON_LONG,
                                TrainOptions.COMPLETION_ONLY_LOSS,
                                TrainOptions.ASSISTANT_ONLY_LOSS,
                                ChatOptions.CHAT_TEMPLATE_PATH,
                                ChatOptions.CHAT_TEMPLATE_KWARGS,
                                ChatOptions.TEMPLATE_DATE,
                                TrainOptions.THREADS)),
                "Computes loss, perplexity and token accuracy over the target tokens of a file, with and without an adapter.");
    }

    @Override
    int run(Settings settings, boolean json, Console console) throws IOException {
        Path dir = settings.get(TrainOptions.MODEL_NAME_OR_PATH);
        Path file = DataFolder.test(settings.get(DATA));
        try (Session session = Session.open(
                dir, settings.find(ADAPTER), settings.get(TrainOptions.THREADS), LoadOptions.fourBit(settings))) {
            RowEncoder encoder = new RowEncoder(
                    session.tokenizer(),
                    ChatOptions.format(
                            settings,
                            session.tokenizer(),
                            session.adapterDir(),
                            ChatOptions.clock(settings, Clock.systemDefaultZone())),
                    settings.get(TrainOptions.COMPLETION_ONLY_LOSS),
                    settings.get(TrainOptions.ASSISTANT_ONLY_LOSS));
            Dataset data = Dataset.load(
                    file,
                    encoder,
                    new RowOptions(
                            settings.get(TrainOptions.DATASET_TEXT_FIELD),
                            settings.get(TrainOptions.MAX_LENGTH),
                            settings.get(TrainOptions.ON_LONG),
                            PackingStrategy.BFD),
                    session.model().config());
            if (data.rowsCut() + data.rowsTooLong() + data.rowsDropped() > 0) {
                console.err().printf("%s: of %d rows: %s%n", file, data.rowsRead(), Text.losses(data));
            }
            var batches = data.batches(settings.get(BATCH_SIZE));
            BatchLoss base = Evaluator.evaluate(session.model(), batches, null);
            BatchLoss adapted =
                    session.adapter() == null ? base : Evaluator.evaluate(session.model(), batches, session.adapter());
            Map<String, Object> report = report(adapted);
            report.put("file", file.toString());
            report.put("rows", data.rows().size());
            report.put("rows_cut", data.rowsCut());
            report.put("rows_too_long", data.rowsTooLong());
            report.put("rows_dropped", data.rowsDropped());
            if (session.adapter() != null) {
                report.put("base", report(base));
            }
            if (json) {
                console.json(report);
            } else {
                print("base model", base, console);
                if (session.adapter() != null) {
                    print("with adapter", adapted, console);
                }
            }
        }
        return 0;
    }

    private static Map<String, Object> report(BatchLoss loss) {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("loss", loss.meanLoss());
        report.put("perplexity", loss.perplexity());
        report.put("mean_token_accuracy", loss.accuracy());
        report.put("target_tokens", loss.targetTokens());
        return report;
    }

    private static void print(String name, BatchLoss loss, Console console) {
        console.out()
                .printf(
                        "%-13s loss %s  perplexity %s  token accuracy %.1f %%  (%d target tokens)%n",
                        name,
                        Text.number(loss.meanLoss()),
                        Text.number(loss.perplexity()),
                        100 * loss.accuracy(),
                        loss.targetTokens());
    }
}
