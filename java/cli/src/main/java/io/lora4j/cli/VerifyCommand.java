package io.lora4j.cli;

import io.lora4j.train.Option;
import io.lora4j.train.OptionException;
import io.lora4j.train.OptionTable;
import io.lora4j.train.Settings;
import io.lora4j.train.TrainOptions;
import io.lora4j.train.Verifier;
import io.lora4j.train.checkpoint.Chain;
import java.io.IOException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** {@code lora4j verify}: whether a run's files are as they were, and whether its steps come to the same bits again. */
final class VerifyCommand extends TableCommand {
    private static final Option<Path> RUN = Option.ofPath("run", "The output_dir of a run.");
    private static final Option<String> STEPS = Option.ofString(
            "steps",
            null,
            "The steps to do again, a..b: after a, which is 0 or the step of a checkpoint, to the checkpoint at b. By default"
                    + " those between the newest checkpoint and the one before it, or the start if there is none; a run whose"
                    + " first checkpoints were deleted can be done again from 0. none: only the hash chain is checked.");
    /** Where the inputs are now; the run has recorded where they were. */
    private static final List<Option<?>> PLACES =
            List.of(TrainOptions.MODEL_NAME_OR_PATH, TrainOptions.TRAIN_FILE, TrainOptions.ADAPTER_NAME_OR_PATH);

    private static final Pattern SLICE = Pattern.compile("(\\d{1,9})\\.\\.(\\d{1,9})");

    VerifyCommand() {
        super(
                new OptionTable(
                        "verify",
                        List.of(
                                RUN,
                                STEPS,
                                TrainOptions.MODEL_NAME_OR_PATH,
                                TrainOptions.TRAIN_FILE,
                                TrainOptions.ADAPTER_NAME_OR_PATH,
                                TrainOptions.THREADS)),
                "Checks the hash chain of a run: base model, data, tokenizer, chat template, options, adapter, optimizer and"
                        + " metrics are, byte for byte, what they were. Then it does a slice of the steps again and compares"
                        + " the bits of adapter and optimizer. Writes nothing. What is different is named.",
                RUN);
    }

    @Override
    int run(Settings settings, boolean json, Console console) throws IOException {
        Path run = settings.get(RUN);
        Map<String, Object> now = new LinkedHashMap<>();
        PLACES.stream()
                .filter(settings::isSet)
                .forEach(place -> now.put(place.name(), settings.get(place).toString()));
        now.put(TrainOptions.THREADS.name(), settings.get(TrainOptions.THREADS).toString());
        Verifier verifier = Verifier.open(run, now);
        Map<String, Object> report = new LinkedHashMap<>();
        report.put("run", run.toString());
        report.put("chain", verifier.finished().orElse(verifier.chain()).hash());
        report.put(
                "links", verifier.chain().links().stream().map(Chain.Link::step).toList());
        report.put("checkpoints", verifier.steps());
        report.put("problems", verifier.problems());
        if (!json) {
            describe(verifier, console);
        }
        List<String> differences = List.of();
        int[] slice = slice(settings, verifier);
        if (slice.length > 0 && verifier.problems().isEmpty()) {
            if (!json) {
                console.out().printf("replay    steps %d to %d%n", slice[0] + 1, slice[1]);
                console.out().flush();
            }
            differences = verifier.replay(slice[0], slice[1], step -> progress(step, slice, console));
            report.put("replayed", Map.of("from", slice[0], "to", slice[1], "differences", differences));
        }
        boolean good = verifier.problems().isEmpty() && differences.isEmpty();
        report.put("verified", good);
        if (json) {
            console.json(report);
        } else {
            conclude(verifier, differences, slice, console);
        }
        return good ? 0 : 1;
    }

    private static int[] slice(Settings settings, Verifier verifier) {
        String given = settings.find(STEPS).orElse("");
        int last = verifier.steps().getLast();
        if (given.isEmpty()) {
            return new int[] {verifier.before(last), last};
        }
        if (given.equals("none")) {
            return new int[0];
        }
        Matcher slice = SLICE.matcher(given);
        if (!slice.matches()) {
            throw new OptionException("option steps: found \"" + given + "\", expected a..b such as "
                    + verifier.before(last) + ".." + last + ", or none");
        }
        return new int[] {Integer.parseInt(slice.group(1)), Integer.parseInt(slice.group(2))};
    }

    private static void progress(int step, int[] slice, Console console) {
        int tenth = Math.max(1, (slice[1] - slice[0]) / 10);
        if ((step - slice[0]) % tenth == 0) {
            console.err().printf("step %d/%d%n", step, slice[1]);
            console.err().flush();
        }
    }

    private static void describe(Verifier verifier, Console console) {
        console.out().println("run       started " + verifier.chain().identity().clock());
        Chain chain = verifier.finished().orElse(verifier.chain());
        console.out()
                .println("chain     " + chain.hash() + ", " + chain.links().size() + " links to "
                        + (verifier.finished().isPresent() ? "the adapter of step " : "step ") + chain.step());
        console.out()
                .println("whole     "
                        + verifier.steps().stream()
                                .map(step -> "checkpoint-" + step)
                                .collect(Collectors.joining(", ")));
        if (verifier.problems().isEmpty()) {
            console.out().println("files     as they were");
        }
        console.out().flush();
    }

    private static void conclude(Verifier verifier, List<String> differences, int[] slice, Console console) {
        verifier.problems().forEach(problem -> console.err().println("lora4j: " + problem));
        if (!verifier.problems().isEmpty()) {
            console.err().println("lora4j: no step was done again, for the files are not those of the run");
        }
        differences.forEach(difference -> console.err().println("lora4j: " + difference));
        if (slice.length > 0 && verifier.problems().isEmpty() && differences.isEmpty()) {
            console.out().println("          adapter and optimizer have the same bits");
        }
        console.err().flush();
    }
}
