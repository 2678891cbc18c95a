package io.lora4j.cli;

import io.lora4j.formats.StreamDecoder;
import io.lora4j.formats.Tokenizer;
import io.lora4j.formats.template.Message;
import io.lora4j.train.data.ChatFormat;
import io.lora4j.train.data.Dataset;
import io.lora4j.train.data.Example;
import io.lora4j.train.data.JsonlReader;
import io.lora4j.train.data.RowEncoder;
import io.lora4j.train.data.RowOptions;
import io.lora4j.train.model.BatchLoss;
import io.lora4j.train.model.Evaluator;
import io.lora4j.train.model.Generator;
import io.lora4j.train.model.Sampling;
import java.io.IOException;
import java.nio.file.Path;
import java.time.ZoneId;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * The answers of a model to the instruction set's held-out questions, greedy.
 *
 * @param question the first question
 * @param expected its right answer
 * @param answer the model's answer to it
 * @param questions how many questions
 * @param right how many answers are exactly the expected ones
 * @param loss of the right answers in {@code valid.jsonl}
 */
record QuickstartExam(String question, String expected, String answer, int questions, int right, BatchLoss loss) {
    private static final int LONGEST_ANSWER = 24;
    private static final int BATCH = 32;

    static QuickstartExam take(Path model, Optional<Path> adapter, int threads) throws IOException {
        try (Session session = Session.open(model, adapter, threads, Optional.empty())) {
            Tokenizer tokenizer = session.tokenizer();
            ChatFormat format = ChatFormat.of(tokenizer, ZonedDateTime.now(ZoneId.systemDefault()));
            RowEncoder encoder = new RowEncoder(tokenizer, format, true, true);
            Dataset valid = Dataset.load(
                    model.resolve("instruct/valid.jsonl"),
                    encoder,
                    RowOptions.truncate(0),
                    session.model().config());
            BatchLoss loss = Evaluator.evaluate(session.model(), valid.batches(BATCH), session.adapter());

            Set<Integer> stopIds = GenerateCommand.stopIds(model, session);
            Generator generator = new Generator(session.model(), session.adapter());
            List<Example> questions = JsonlReader.read(model.resolve("instruct/test.jsonl"));
            int right = 0;
            List<String> answers = new ArrayList<>();
            for (Example example : questions) {
                List<Message> messages = ((Example.Chat) example).messages();
                String question = text(messages.getFirst());
                String prompt = format.text(List.of(new Message("user", question)), true);
                StreamDecoder decoder = new StreamDecoder(tokenizer, true);
                StringBuilder answer = new StringBuilder();
                generator.generate(tokenizer.encode(prompt, false), Sampling.GREEDY, stopIds, LONGEST_ANSWER, id -> {
                    answer.append(decoder.add(id));
                    return true;
                });
                answer.append(decoder.finish());
                answers.add(answer.toString());
                right += answer.toString().strip().equals(text(messages.getLast())) ? 1 : 0;
            }
            List<Message> first = ((Example.Chat) questions.getFirst()).messages();
            return new QuickstartExam(
                    text(first.getFirst()), text(first.getLast()), answers.getFirst(), questions.size(), right, loss);
        }
    }

    private static String text(Message message) {
        return String.valueOf(message.content());
    }

    /** Part of the questions that were answered exactly, in percent. */
    double exactMatch() {
        return 100.0 * right / questions;
    }

    Map<String, Object> report() {
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("exact_match_percent", exactMatch());
        report.put("right", right);
        report.put("questions", questions);
        report.put("loss", loss.meanLoss());
        report.put("perplexity", loss.perplexity());
        report.put("answer", answer);
        return report;
    }
}
