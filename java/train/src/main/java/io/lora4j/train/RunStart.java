package io.lora4j.train;

import io.lora4j.formats.MergedValues;
import io.lora4j.formats.ModelValues;
import io.lora4j.formats.ModelWriter;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.formats.StoredValues;
import io.lora4j.kernels.Queue;
import io.lora4j.train.checkpoint.CheckpointStore;
import io.lora4j.train.checkpoint.Fingerprint;
import io.lora4j.train.checkpoint.OptimizerFile;
import io.lora4j.train.model.Adapter;
import io.lora4j.train.model.FourBit;
import io.lora4j.train.model.LlamaModel;
import io.lora4j.train.model.LoraInit;
import io.lora4j.train.model.LoraStart;
import io.lora4j.train.model.ModelForm;
import io.lora4j.train.model.OptimizerState;
import io.lora4j.train.model.WeightMode;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * The model and the adapter that a run's next step begins with.
 *
 * <p>Where the adapter begins with PiSSA or LoftQ, the model is another one than that of {@code model_name_or_path}: held in memory less
 * what the adapter began with, which every checkpoint has in it; or with {@code load_in_4bit} a quantized one that lies in the run's own
 * folder, and is opened from there by a run that goes on.
 */
final class RunStart implements AutoCloseable {
    /** The folder of the quantized base in that of the run. */
    static final String BASE = "base_model";

    private final LlamaModel model;
    private final Adapter adapter;

    private RunStart(LlamaModel model, Adapter adapter) {
        this.model = model;
        this.adapter = adapter;
    }

    /** Makes the run's folder ready to be written to. */
    @FunctionalInterface
    interface Preparation {
        void run() throws IOException;
    }

    /**
     * Opens both, for a run that writes.
     *
     * @param run the run's folder
     * @param prepare called when everything that is only read was found good, before anything is written
     */
    static RunStart open(TrainPlan plan, Sources sources, Queue queue, Path run, Preparation prepare)
            throws IOException {
        if (!InitOptions.writesBase(plan.settings())) {
            RunStart start = open(plan, sources, queue, run);
            try {
                prepare.run();
                return start;
            } catch (IOException | RuntimeException e) {
                start.close();
                throw e;
            }
        }
        try (Arena arena = Arena.ofShared()) {
            boolean given = plan.resumeFrom().isPresent() && Files.exists(run.resolve(BASE));
            LoraStart start = given ? null : compute(plan, sources, queue, arena);
            prepare.run();
            if (start != null) {
                writeBase(plan.settings(), sources, start.subtracted(), run.resolve(BASE), queue);
            }
            return onOwnBase(plan, sources, queue, run, start);
        }
    }

    /** Opens both and writes nothing: a base of the run's own must be there. */
    static RunStart open(TrainPlan plan, Sources sources, Queue queue, Path run) throws IOException {
        Settings settings = plan.settings();
        if (InitOptions.writesBase(settings)) {
            try (Arena arena = Arena.ofShared()) {
                LoraStart start = plan.resumeFrom().isPresent() ? null : compute(plan, sources, queue, arena);
                return onOwnBase(plan, sources, queue, run, start);
            }
        }
        ModelForm form = ModelForm.of(WeightMode.PACK)
                .withCompute(TrainOptions.compute(settings))
                .withFourBit(LoadOptions.fourBit(settings).orElse(null));
        Path dir = sources.model().dir();
        if (!InitOptions.init(settings).changesBase()) {
            return with(LlamaModel.open(dir, queue, form), model -> adapter(model, plan, sources));
        }
        try (Arena arena = Arena.ofShared()) {
            PeftAdapter begun;
            PeftAdapter less;
            if (plan.resumeFrom().isPresent()) {
                List<PeftAdapter> halves =
                        PeftAdapter.read(plan.resumeFrom().get(), arena).split(plan.adapter(), arena);
                begun = halves.getFirst();
                less = halves.getLast();
            } else {
                LoraStart start = compute(plan, sources, queue, arena);
                begun = start.adapter();
                less = start.subtracted();
            }
            String where = plan.resumeFrom().orElse(dir).toString();
            return with(LlamaModel.open(dir, queue, form.withLess(less)), model -> {
                Adapter adapter = Adapter.ofDifference(model, begun, less, where, state(plan));
                return withMoments(adapter, plan);
            });
        }
    }

    private static LoraStart compute(TrainPlan plan, Sources sources, Queue queue, Arena arena) throws IOException {
        LoraInit init = InitOptions.init(plan.settings());
        FourBit fourBit = LoadOptions.fourBit(plan.settings()).orElse(null);
        return LoraStart.compute(sources.model().dir(), plan.adapter(), init, fourBit, queue, arena);
    }

    private static void writeBase(Settings settings, Sources sources, PeftAdapter less, Path base, Queue queue)
            throws IOException {
        Path dir = sources.model().dir();
        try (ModelValues values = MergedValues.less(StoredValues.open(dir, queue), less, queue)) {
            String compute = ModelWriter.torchName(values.dtype("model.embed_tokens.weight"));
            FourBit fourBit = LoadOptions.fourBit(settings).orElseThrow();
            ModelWriter.bitsAndBytes(
                    base, values, dir, fourBit.toBitsAndBytes(compute), queue, (folder, reports) -> {});
        }
    }

    private static RunStart onOwnBase(TrainPlan plan, Sources sources, Queue queue, Path run, @Nullable LoraStart start)
            throws IOException {
        if (plan.resumeFrom().isPresent()) {
            requireBaseOf(plan.resumeFrom().get(), run);
        }
        ModelForm form = ModelForm.of(WeightMode.PACK).withCompute(TrainOptions.compute(plan.settings()));
        Path base = run.resolve(BASE);
        return with(
                LlamaModel.open(base, queue, form),
                model -> plan.resumeFrom().isPresent() || start == null
                        ? adapter(model, plan, sources)
                        : Adapter.of(model, start.adapter(), base.toString(), state(plan)));
    }

    private static void requireBaseOf(Path checkpoint, Path run) throws IOException {
        Map<String, Fingerprint> files =
                CheckpointStore.read(checkpoint).chain().files();
        for (Map.Entry<String, Fingerprint> file : files.entrySet()) {
            if (file.getKey().startsWith("../" + BASE + "/")) {
                Path here = run.resolve(file.getKey().substring("../".length()));
                Optional<String> difference = file.getValue().differenceOf(here, false);
                if (difference.isPresent()) {
                    throw new TrainException(checkpoint + ": was trained on a base that is no longer there: " + here
                            + " " + difference.get() + "; put it back, or start a new run in another output_dir");
                }
            }
        }
    }

    /** A new adapter as PEFT's default has it, one to go on with, or a checkpoint's with its optimizer. */
    private static Adapter adapter(LlamaModel model, TrainPlan plan, Sources sources) throws IOException {
        Path from = plan.resumeFrom().or(sources::adapter).orElse(null);
        if (from == null) {
            return Adapter.create(model, plan.adapter(), plan.settings().get(TrainOptions.SEED), state(plan));
        }
        try (Arena copies = Arena.ofConfined()) {
            PeftAdapter peft = new PeftAdapter(
                    plan.adapter(), PeftAdapter.read(from, copies).modules());
            return withMoments(Adapter.of(model, peft, from.toString(), state(plan)), plan);
        }
    }

    private static OptimizerState state(TrainPlan plan) {
        return plan.settings().get(TrainOptions.OPTIM).state();
    }

    private static Adapter withMoments(Adapter adapter, TrainPlan plan) throws IOException {
        if (plan.resumeFrom().isPresent()) {
            try {
                OptimizerFile.read(plan.resumeFrom().get(), adapter);
            } catch (IOException | RuntimeException e) {
                adapter.close();
                throw e;
            }
        }
        return adapter;
    }

    /** Makes an adapter for a model. */
    @FunctionalInterface
    private interface AdapterOf {
        Adapter make(LlamaModel model) throws IOException;
    }

    private static RunStart with(LlamaModel model, AdapterOf adapter) throws IOException {
        try {
            return new RunStart(model, adapter.make(model));
        } catch (IOException | RuntimeException e) {
            model.close();
            throw e;
        }
    }

    LlamaModel model() {
        return model;
    }

    Adapter adapter() {
        return adapter;
    }

    @Override
    public void close() {
        adapter.close();
        model.close();
    }
}
