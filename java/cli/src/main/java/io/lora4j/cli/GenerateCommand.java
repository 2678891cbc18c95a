package io.lora4j.cli;

import io.lora4j.formats.FormatException;
import io.lora4j.formats.GenerationConfig;
import io.lora4j.formats.InputFile;
import io.lora4j.formats.StreamDecoder;
import io.lora4j.formats.Tokenizer;
import io.lora4j.formats.template.Message;
import io.lora4j.kernels.Tensor;
import io.lora4j.train.ChatOptions;
import io.lora4j.train.LoadOptions;
import io.lora4j.train.Option;
import io.lora4j.train.OptionException;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import io.lora4j.train.TrainOptions;
import io.lora4j.train.data.ChatFormat;
import io.lora4j.train.model.Batch;
import io.lora4j.train.model.Generation;
import io.lora4j.train.model.Generator;
import io.lora4j.train.model.Sampling;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.time.Clock;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;
import tools.jackson.core.JacksonException;
import tools.jackson.databind.JsonNode;
import tools.jackson.databind.json.JsonMapper;

/** {@code lora4j generate}: continues a prompt or answers a chat, with or without an adapter, streaming. */
final class GenerateCommand extends TableCommand {
    private static final Option<Path> ADAPTER = Option.ofPath(
                    "adapter_name_or_path", "Adapter to generate with: a folder, or a name in the Hugging Face cache.")
            .otherwise("none")
            .alias("adapter");
    private static final Option<String> PROMPT =
            Option.ofString("prompt", null, "What to answer or continue; - reads it from standard input.");
    private static final Option<Path> MESSAGES = Option.ofPath(
            "messages", "JSON file with a list of messages (role, content), or an object that has it as messages.");
    private static final Option<String> SYSTEM_PROMPT =
            Option.ofString("system_prompt", null, "A system message before the prompt.");
    private static final Option<Boolean> NO_CHAT_TEMPLATE = Option.ofBoolean(
            "no_chat_template", false, "Continue the prompt as plain text, even if the model has a chat template.");
    private static final Option<List<String>> STOP = Option.of(
            "stop", "TEXT...", List.of(), "End before this text; may be given several times.", GenerateCommand::stops);
    private static final Option<Integer> MAX_NEW_TOKENS =
            Option.ofInt("max_new_tokens", 256, 1, "Generate at most this many tokens.");
    private static final Option<Double> TEMPERATURE = Option.ofDouble(
            "temperature", 0, 0, Double.MAX_VALUE, false, "0 takes the most likely token; larger is more varied.");
    private static final Option<Integer> TOP_K =
            Option.ofInt("top_k", 0, 0, "Draw from the k most likely tokens only; 0 = all.");
    private static final Option<Double> TOP_P = Option.ofDouble(
            "top_p", 1, Double.MIN_VALUE, 1, false, "Draw from the smallest set of tokens that has this probability.");
    private static final Option<Long> SEED = Option.ofLong("seed", 42, "Determines what is drawn.");
    private static final Option<Boolean> LOGITS =
            Option.ofBoolean("logits", false, "With --json: the logits of the prompt's last position too.");

    private static List<String> stops(Object given) {
        List<String> texts = given instanceof List<?> list
                ? list.stream().map(String::valueOf).toList()
                : List.of(given.toString());
        if (texts.contains("")) {
            throw new IllegalArgumentException("a text to end before");
        }
        return texts;
    }

    GenerateCommand() {
        super(
                new OptionTable(
                        "generate",
                        List.of(
                                TrainOptions.MODEL_NAME_OR_PATH,
                                LoadOptions.LOAD_IN_4BIT,
                                LoadOptions.BNB_4BIT_QUANT_TYPE,
                                LoadOptions.BNB_4BIT_USE_DOUBLE_QUANT,
                                ADAPTER,
                                PROMPT,
                                MESSAGES,
                                SYSTEM_PROMPT,
                                NO_CHAT_TEMPLATE,
                                ChatOptions.CHAT_TEMPLATE_PATH,
                                ChatOptions.CHAT_TEMPLATE_KWARGS,
                                ChatOptions.TEMPLATE_DATE,
                                STOP,
                                MAX_NEW_TOKENS,
                                TEMPERATURE,
                                TOP_K,
                                TOP_P,
                                SEED,
                                LOGITS,
                                TrainOptions.THREADS)),
                "Continues a prompt or answers a chat. Ends at any eos_token_id of generation_config.json or the tokenizer's.");
    }

    @Override
    int run(Settings settings, boolean json, Console console) throws IOException {
        if (settings.get(LOGITS) && !json) {
            throw new OptionException("option logits: needs --json, which the logits are printed in");
        }
        String text = null;
        List<Message> messages = new ArrayList<>();
        if (settings.isSet(PROMPT) == settings.isSet(MESSAGES)) {
            throw new OptionException("generate needs either --prompt or --messages");
        }
        settings.find(SYSTEM_PROMPT).ifPresent(system -> messages.add(new Message("system", system)));
        if (settings.isSet(MESSAGES)) {
            List<Message> given = readMessages(settings.get(MESSAGES));
            if (settings.isSet(SYSTEM_PROMPT) && given.getFirst().role().equals("system")) {
                throw new OptionException("option system_prompt: " + settings.get(MESSAGES)
                        + " begins with a system message; remove one of them");
            }
            messages.addAll(given);
        } else {
            text = settings.get(PROMPT);
            if (text.equals("-")) {
                text = InputFile.text(console.in().readAllBytes(), "standard input");
            }
            messages.add(new Message("user", text));
        }
        try (Session session = Session.open(
                settings.get(TrainOptions.MODEL_NAME_OR_PATH),
                settings.find(ADAPTER),
                settings.get(TrainOptions.THREADS),
                LoadOptions.fourBit(settings))) {
            int[] prompt = encode(session, settings, text, messages);
            int context = session.model().config().maxPositionEmbeddings();
            if (prompt.length == 0 || prompt.length >= context) {
                throw new OptionException(
                        "option " + (text == null ? MESSAGES : PROMPT).name() + ": has " + prompt.length
                                + " tokens, expected 1 to " + (context - 1)
                                + ": the model's context is " + context
                                + " (max_position_embeddings) and the answer needs room");
            }
            generate(session, settings, session.dir(), prompt, json, console);
        }
        return 0;
    }

    private static int[] encode(Session session, Settings settings, @Nullable String text, List<Message> messages)
            throws IOException {
        Tokenizer tokenizer = session.tokenizer();
        if (!settings.get(NO_CHAT_TEMPLATE)) {
            ChatFormat format = ChatOptions.format(
                    settings, tokenizer, session.adapterDir(), ChatOptions.clock(settings, Clock.systemDefaultZone()));
            if (format.hasTemplate()) {
                return tokenizer.encode(format.text(messages, true), false);
            }
        }
        if (text == null || settings.isSet(SYSTEM_PROMPT)) {
            throw new OptionException("messages and system_prompt need a chat template: "
                    + (settings.get(NO_CHAT_TEMPLATE)
                            ? "remove no_chat_template"
                            : "the model has none; use --prompt alone"));
        }
        return tokenizer.encode(text, true);
    }

    private void generate(Session session, Settings settings, Path dir, int[] prompt, boolean json, Console console)
            throws IOException {
        Tokenizer tokenizer = session.tokenizer();
        Set<Integer> stopIds = stopIds(dir, session);
        StreamDecoder decoder = new StreamDecoder(tokenizer, true);
        StopStrings stop = new StopStrings(settings.get(STOP));
        StringBuilder shown = new StringBuilder();
        Map<String, Object> report = new LinkedHashMap<>();
        if (settings.get(LOGITS)) {
            try (Arena arena = Arena.ofConfined()) {
                Batch batch = Batch.ofIds(List.of(prompt));
                Tensor logits = session.model().logits(batch, session.adapter(), batch.lastRows(), arena);
                report.put("logits", logits.toFloatArray());
            }
        }
        Sampling sampling =
                new Sampling(settings.get(TEMPERATURE), settings.get(TOP_K), settings.get(TOP_P), settings.get(SEED));
        long begin = System.nanoTime();
        Generation generation = new Generator(session.model(), session.adapter())
                .generate(prompt, sampling, stopIds, settings.get(MAX_NEW_TOKENS), id -> {
                    show(stop.add(decoder.add(id)), shown, json, console);
                    return !stop.found();
                });
        double seconds = (System.nanoTime() - begin) / 1e9;
        show(stop.add(decoder.finish()) + stop.finish(), shown, json, console);
        if (json) {
            report.put("text", shown.toString());
            report.put("token_ids", generation.ids());
            report.put("prompt_token_ids", prompt);
            report.put("finish", finish(generation));
            report.put("seconds", seconds);
            console.json(report);
        } else {
            console.out().println();
        }
    }

    private static String finish(Generation generation) {
        return switch (generation.finish()) {
            case LISTENER -> "stop_string";
            case STOP_TOKEN, MAX_NEW_TOKENS, CONTEXT ->
                generation.finish().name().toLowerCase(Locale.ROOT);
        };
    }

    private static void show(String piece, StringBuilder shown, boolean json, Console console) {
        shown.append(piece);
        if (!json && !piece.isEmpty()) {
            console.out().print(piece);
            console.out().flush();
        }
    }

    /** Every eos_token_id of the generation config (of the model's config where it has none), and the tokenizer's eos. */
    static Set<Integer> stopIds(Path dir, Session session) throws IOException {
        Set<Integer> ids = new HashSet<>(GenerationConfig.read(dir).eosTokenIds());
        if (ids.isEmpty()) {
            ids.addAll(session.model().config().eosTokenIds());
        }
        session.tokenizer().eos().ifPresent(eos -> ids.add(eos.id()));
        return ids;
    }

    private static List<Message> readMessages(Path file) throws IOException {
        JsonNode tree;
        try {
            tree = new JsonMapper().readTree(TextFile.read(file));
        } catch (JacksonException e) {
            throw new FormatException(file + ": not valid JSON: " + InputFile.jsonProblem(e));
        }
        JsonNode list = tree.isObject() ? tree.path("messages") : tree;
        List<Message> messages = new ArrayList<>();
        for (JsonNode message : list) {
            if (!message.path("role").isString() || !message.path("content").isString()) {
                throw new FormatException(file + ": message " + messages.size() + " is " + message
                        + ", expected an object with role and content as text");
            }
            messages.add(new Message(
                    message.get("role").asString(), message.get("content").asString()));
        }
        if (messages.isEmpty()) {
            throw new FormatException(file + ": expected a list of messages, or an object with messages");
        }
        return messages;
    }
}
