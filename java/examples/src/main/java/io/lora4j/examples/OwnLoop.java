package io.lora4j.examples;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.ModuleFilter;
import io.lora4j.formats.Tokenizer;
import io.lora4j.kernels.Adamw;
import io.lora4j.kernels.AdamwHyper;
import io.lora4j.kernels.AdamwOps;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.train.Schedule;
import io.lora4j.train.data.RowOrder;
import io.lora4j.train.model.Adapter;
import io.lora4j.train.model.Batch;
import io.lora4j.train.model.GradientOptions;
import io.lora4j.train.model.LlamaModel;
import io.lora4j.train.model.WeightMode;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** A training loop without {@code Trainer}: {@code OwnLoop MODEL TEXTS OUTPUT}, with a text in each line. The bits of train. */
public final class OwnLoop {
    public static void main(String[] args) throws Exception {
        AdapterConfig config = AdapterConfig.of(8, 16, new ModuleFilter.AllLinear());
        try (Device device = Device.cpu();
                Queue queue = Queue.create(device);
                LlamaModel model = LlamaModel.open(Path.of(args[0]), queue, WeightMode.BORROW);
                Tokenizer tokenizer = Tokenizer.open(Path.of(args[0]));
                Adapter adapter = Adapter.create(model, config.withLoraDropout(0.1), 42);
                Arena arena = Arena.ofConfined()) {
            AdamwHyper hyper = AdamwHyper.allocate(arena).weightDecay(0).maxGradNorm(1);
            Adamw.Builder adamw = Adamw.builder(arena).group(hyper, null).zeroGrads(true);
            adapter.parameterList().forEach(p -> adamw.parameter(p.value(), p.gradient(), p.expAvg(), p.expAvgSq()));
            Adamw update = adamw.build();
            List<Batch.Sequence> rows = new ArrayList<>();
            List<String> texts = Files.readAllLines(Path.of(args[1]));
            String end = tokenizer.eos().orElseThrow().text();
            long tokens = 0;
            for (int row : RowOrder.of(texts.size(), 42, 0)) { // the order of train's first epoch
                int[] ids = tokenizer.encode(texts.get(row) + end, true);
                rows.add(new Batch.Sequence(ids, ids, tokens)); // every token is learned
                tokens += ids.length;
            }
            Schedule schedule = new Schedule(Schedule.Type.COSINE, 2e-3, 1, rows.size() / 2);
            for (int step = 1; step <= schedule.totalSteps(); step++) {
                Batch batch = Batch.of(rows.subList(2 * step - 2, 2 * step));
                GradientOptions mean = new GradientOptions(1.0 / batch.targetTokens(), false, 42, step);
                double loss = model.lossAndGradients(batch, adapter, mean).meanLoss();
                hyper.learningRate(schedule.at(step)).step(step);
                AdamwOps.step(queue, update);
                System.out.printf("step %d: loss %.4f%n", step, loss);
            }
            adapter.save(Files.createDirectories(Path.of(args[2])));
        }
    }
}
