package io.lora4j.bench;

import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.train.model.Generation;
import io.lora4j.train.model.Generator;
import io.lora4j.train.model.LlamaModel;
import io.lora4j.train.model.Sampling;
import io.lora4j.train.model.WeightMode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * lora4j's side of the benchmark {@code generate}: answers requests from standard input, a line each, with a line of JSON, as the other
 * sides do ({@code bench/suite/generate_worker.py}).
 *
 * <pre>java -cp benchmarks.jar io.lora4j.bench.GenerateWorker MODELS
 * generate/weights=f32/prompt=512/new=64/threads=2</pre>
 *
 * <p>{@code weights} names a model's folder in MODELS, which stays open until {@code release}. The answer holds the seconds until the
 * first token is known (prefill), the seconds for {@code new} more tokens (decode), and the ids of all.
 */
public final class GenerateWorker implements AutoCloseable {
    private final Path models;
    private final Device device = Device.cpu();
    private final Map<String, Opened> opened = new HashMap<>();

    private record Opened(Queue queue, LlamaModel model) {}

    private GenerateWorker(Path models) {
        this.models = models;
    }

    /** Answers until the input ends. */
    public static void main(String[] args) throws IOException {
        if (args.length != 1) {
            System.err.println(
                    "usage: GenerateWorker MODELS, the folder that holds a model's folder for each type of weights");
            System.exit(2);
        }
        try (GenerateWorker worker = new GenerateWorker(Path.of(args[0]));
                BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                System.out.println(worker.answer(line));
            }
        }
    }

    private String answer(String request) {
        try {
            if (request.equals("release")) {
                close();
                return "{}";
            }
            return generate(Arrays.asList(request.split("/", -1)));
        } catch (IOException | RuntimeException e) {
            String text = request + ": " + e;
            return "{\"error\": \"" + text.replace('\\', '/').replace('"', '\'').replaceAll("\\p{Cntrl}", " ") + "\"}";
        }
    }

    private String generate(List<String> words) throws IOException {
        Map<String, String> spec = new HashMap<>();
        for (String word : words.subList(1, words.size())) {
            String[] pair = word.split("=", 2);
            spec.put(pair[0], pair[1]);
        }
        int[] prompt = new int[number(spec, "prompt")];
        Arrays.setAll(prompt, i -> i * 7919 % 49152);
        int more = number(spec, "new");
        LlamaModel model = open(spec.getOrDefault("weights", "f32"), number(spec, "threads"));
        long[] told = new long[more + 1];
        int[] count = {0};
        long begin = System.nanoTime();
        Generation generation = new Generator(model, null).generate(prompt, Sampling.GREEDY, Set.of(), more + 1, id -> {
            told[count[0]++] = System.nanoTime();
            return true;
        });
        return "{\"prefill\": " + (told[0] - begin) / 1e9 + ", \"decode\": " + (told[more] - told[0]) / 1e9
                + ", \"ids\": " + generation.ids() + "}";
    }

    private LlamaModel open(String weights, int threads) throws IOException {
        String key = weights + " " + threads;
        Opened have = opened.get(key);
        if (have == null) {
            Queue queue = Queue.create(device, threads);
            have = new Opened(queue, LlamaModel.open(models.resolve(weights), queue, WeightMode.PACK));
            opened.put(key, have);
        }
        return have.model();
    }

    private static int number(Map<String, String> spec, String key) {
        String value = spec.get(key);
        if (value == null) {
            throw new IllegalArgumentException("no " + key + "=…");
        }
        return Integer.parseInt(value);
    }

    /** Closes the models. */
    @Override
    public void close() {
        for (Opened one : opened.values()) {
            one.model().close();
            one.queue().close();
        }
        opened.clear();
    }
}
