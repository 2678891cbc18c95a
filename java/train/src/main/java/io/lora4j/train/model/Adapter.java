package io.lora4j.train.model;

import io.lora4j.formats.AdapterConfig;
import io.lora4j.formats.FormatException;
import io.lora4j.formats.LoraWeights;
import io.lora4j.formats.ModelConfig;
import io.lora4j.formats.ModelModule;
import io.lora4j.formats.ModuleFilter;
import io.lora4j.formats.PeftAdapter;
import io.lora4j.kernels.DType;
import io.lora4j.kernels.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A LoRA adapter of a model (Hu et al. 2021): a pair of matrices for each linear layer that its config names.
 *
 * <p>All parameters lie in one flat buffer, in the order of the forward pass and A before B, and in an adapter made for training the
 * gradients in another one of the same layout; each matrix has its moments of AdamW for itself. All memory is the adapter's and
 * goes with {@link #close}.
 *
 * <p>Threads: any one at a time. Passes of a model write the gradients, nothing else of the adapter.
 */
public final class Adapter implements AutoCloseable {
    private final AdapterConfig config;
    private final List<LoraLinear> linears;
    private final @Nullable LoraLinear[] byModuleId;
    private final Tensor parameters;
    private final @Nullable Tensor gradients;
    private final Arena arena;
    /** What the base is less of, in this adapter's memory. */
    private @Nullable PeftAdapter less;

    /** With gradients and moments if there is a {@code state} to hold them in. */
    private Adapter(ModelConfig model, AdapterConfig config, DType dtype, @Nullable OptimizerState state)
            throws FormatException {
        List<ModelModule> targets = config.targets(model.modules());
        long size = parameterCount(config, targets);
        this.config = config;
        this.arena = Arena.ofShared();
        this.parameters = Tensor.allocate(arena, dtype, size);
        this.gradients = state == null ? null : Tensor.allocate(arena, dtype, size);
        this.linears = new ArrayList<>();
        this.byModuleId = new LoraLinear[model.numHiddenLayers() * Projection.values().length];
        Map<String, ModelModule> open = new LinkedHashMap<>();
        targets.forEach(target -> open.put(target.name(), target));
        long offset = 0;
        for (int layer = 0; layer < model.numHiddenLayers(); layer++) {
            for (Projection projection : Projection.values()) {
                ModelModule target = open.remove(projection.module(layer));
                if (target != null) {
                    LoraLinear linear = linear(target, layer, projection, offset, state);
                    linears.add(linear);
                    byModuleId[linear.moduleId()] = linear;
                    offset += linear.a().value().elements() + linear.b().value().elements();
                }
            }
        }
    }

    private LoraLinear linear(
            ModelModule target, int layer, Projection projection, long offset, @Nullable OptimizerState state) {
        String name = target.name();
        int rank = config.rank(name);
        String prefix = "base_model.model." + name;
        return new LoraLinear(
                name,
                layer,
                projection.moduleId(layer),
                config.scaling(name),
                parameter(prefix + ".lora_A.weight", offset, rank, target.inFeatures(), state),
                parameter(
                        prefix + ".lora_B.weight",
                        offset + rank * target.inFeatures(),
                        target.outFeatures(),
                        rank,
                        state));
    }

    private LoraLinear.Parameter parameter(
            String name, long offset, long rows, long columns, @Nullable OptimizerState state) {
        Tensor value = view(parameters, offset, rows, columns);
        if (state == null || gradients == null) {
            return new LoraLinear.Parameter(name, value, null);
        }
        return new LoraLinear.Parameter(
                name,
                value,
                new LoraLinear.Parameter.Training(
                        view(gradients, offset, rows, columns),
                        state.allocate(arena, value.dtype(), rows, columns),
                        state.allocate(arena, value.dtype(), rows, columns)));
    }

    private static Tensor view(Tensor flat, long offset, long rows, long columns) {
        return flat.rows(offset, offset + rows * columns).reshape(rows, columns);
    }

    /**
     * Returns how many numbers an adapter has, without making it.
     *
     * @throws FormatException if the config does not fit the model: see {@link AdapterConfig#targets}; or names the output head
     */
    public static long parameterCount(ModelConfig model, AdapterConfig config) throws FormatException {
        return parameterCount(config, config.targets(model.modules()));
    }

    /**
     * Returns the bytes of AdamW's moments of an adapter of float32, without making it.
     *
     * @throws FormatException as {@link #parameterCount(ModelConfig, AdapterConfig)}
     */
    public static long momentBytes(ModelConfig model, AdapterConfig config, OptimizerState state)
            throws FormatException {
        long bytes = 0;
        for (ModelModule target : config.targets(model.modules())) {
            long rank = config.rank(target.name());
            bytes += state.bytes(rank * target.inFeatures()) + state.bytes(rank * target.outFeatures());
        }
        return bytes;
    }

    private static long parameterCount(AdapterConfig config, List<ModelModule> targets) throws FormatException {
        long count = 0;
        for (ModelModule target : targets) {
            if (target.kind() == ModelModule.Kind.HEAD) {
                throw new FormatException(
                        "target_modules names " + target.name() + ", the output head; LoRA on the head is not"
                                + " supported, only on the linear layers of the blocks: take it out of target_modules");
            }
            count += config.rank(target.name()) * (target.inFeatures() + target.outFeatures());
        }
        return count;
    }

    /**
     * Makes an adapter to be trained, initialised as PEFT does: A uniform in ±1/√K (Kaiming with a = √5), B zero, so that it changes
     * nothing yet. The numbers of a module depend on the seed and its name alone: a SplitMix64 stream for each.
     *
     * @throws FormatException if the config does not fit the model
     */
    public static Adapter create(LlamaModel model, AdapterConfig config, long seed) throws FormatException {
        return create(model, config, seed, OptimizerState.FLOAT);
    }

    /**
     * Makes an adapter to be trained, as {@link #create(LlamaModel, AdapterConfig, long)} does.
     *
     * @param state how AdamW's moments are held
     * @throws FormatException if the config does not fit the model
     */
    public static Adapter create(LlamaModel model, AdapterConfig config, long seed, OptimizerState state)
            throws FormatException {
        Adapter adapter = new Adapter(model.config(), config, model.computeType(), state);
        for (LoraLinear linear : adapter.linears) {
            SplitMix64 random = new SplitMix64(seed, linear.module());
            float[] a = new float[(int) linear.a().value().elements()];
            double bound = 1 / Math.sqrt(linear.a().value().size(1));
            for (int i = 0; i < a.length; i++) {
                a[i] = random.uniform(bound);
            }
            linear.a().value().copyFrom(a);
        }
        return adapter;
    }

    /**
     * Takes over an adapter that was read.
     *
     * @param where begins error messages, for example the adapter's path
     * @param trainable whether gradients and moments (zeros) are wanted too
     * @throws FormatException if the adapter is of another base model
     */
    public static Adapter of(LlamaModel model, PeftAdapter peft, String where, boolean trainable)
            throws FormatException {
        return of(model, peft, where, trainable ? OptimizerState.FLOAT : null);
    }

    /**
     * Takes over an adapter that was read.
     *
     * @param where begins error messages, for example the adapter's path
     * @param state how AdamW's moments (zeros) are held; null if neither they nor gradients are wanted
     * @throws FormatException if the adapter is of another base model
     */
    public static Adapter of(LlamaModel model, PeftAdapter peft, String where, @Nullable OptimizerState state)
            throws FormatException {
        peft.requireFits(where, model.config().modules());
        Adapter adapter = new Adapter(model.config(), peft.config(), model.computeType(), state);
        for (LoraLinear linear : adapter.linears) {
            LoraWeights weights = peft.modules().get(linear.module());
            if (weights == null) {
                throw new AssertionError(linear.module() + " passed requireFits without weights");
            }
            copy(weights.a(), linear.a().value());
            copy(weights.b(), linear.b().value());
        }
        return adapter;
    }

    /**
     * Takes over an adapter that is trained on a base less another one ({@link ModelForm#less}). What is written down is their difference:
     * an adapter of twice the rank for the base itself.
     *
     * @param less has the same config and modules
     * @throws FormatException if an adapter is of another base model
     */
    public static Adapter ofDifference(
            LlamaModel model, PeftAdapter peft, PeftAdapter less, String where, OptimizerState state)
            throws FormatException {
        Adapter adapter = of(model, peft, where, state);
        Map<String, LoraWeights> copies = new LinkedHashMap<>();
        less.modules().forEach((name, w) -> copies.put(name, w.copy(adapter.arena)));
        adapter.less = new PeftAdapter(less.config(), copies);
        return adapter;
    }

    /**
     * Reads an adapter in PEFT's layout.
     *
     * @param dir a directory with {@code adapter_config.json} and {@code adapter_model.safetensors}
     * @param trainable whether gradients and moments (zeros) are wanted too
     * @throws FormatException if it is damaged or of another base model
     */
    public static Adapter load(LlamaModel model, Path dir, boolean trainable) throws IOException {
        try (Arena arena = Arena.ofConfined()) {
            return of(model, PeftAdapter.read(dir, arena), dir.toString(), trainable);
        }
    }

    private static void copy(MemorySegment from, Tensor to) {
        to.copyFrom(Tensor.of(from, DType.F32, to.shape()));
    }

    /** Writes the adapter in PEFT's layout, as float32. {@code all-linear} is written as the list of names that it came to. */
    public void save(Path dir) throws IOException {
        try (Arena copies = Arena.ofConfined()) {
            toPeft(copies).write(dir);
        }
    }

    /** Returns what is written down, in PEFT's terms: the adapter's own memory, or copies that {@code copies} owns. */
    public PeftAdapter toPeft(Arena copies) {
        Map<String, LoraWeights> modules = new LinkedHashMap<>();
        for (LoraLinear linear : linears) {
            Tensor a = linear.a().value();
            Tensor b = linear.b().value();
            modules.put(
                    linear.module(),
                    new LoraWeights(linear.rank(), a.size(1), b.size(0), float32(copies, a), float32(copies, b)));
        }
        PeftAdapter trained = new PeftAdapter(writtenConfig(), modules);
        return less == null ? trained : trained.minus(less, copies);
    }

    private static MemorySegment float32(Arena arena, Tensor from) {
        if (from.dtype() == DType.F32) {
            return from.data();
        }
        Tensor copy = Tensor.allocate(arena, DType.F32, from.shape());
        copy.copyFrom(from);
        return copy.data();
    }

    private AdapterConfig writtenConfig() {
        if (!(config.targetModules() instanceof ModuleFilter.AllLinear)) {
            return config;
        }
        List<String> names = linears.stream()
                .map(linear -> linear.module().substring(linear.module().lastIndexOf('.') + 1))
                .distinct()
                .sorted()
                .toList();
        return config.withTargetModules(new ModuleFilter.Names(names));
    }

    /** Returns the config. */
    public AdapterConfig config() {
        return config;
    }

    /** Returns the adapted layers, in the order of the forward pass. */
    public List<LoraLinear> linears() {
        return List.copyOf(linears);
    }

    /** Returns every matrix in the order of the flat buffers: A, then B, of each layer of {@link #linears}. */
    public List<LoraLinear.Parameter> parameterList() {
        return linears.stream()
                .<LoraLinear.Parameter>mapMulti((linear, to) -> {
                    to.accept(linear.a());
                    to.accept(linear.b());
                })
                .toList();
    }

    /** Returns all parameters as one flat tensor. */
    public Tensor parameters() {
        return parameters;
    }

    /** Returns all gradients as one flat tensor; {@link IllegalStateException} if the adapter is not trainable. */
    public Tensor gradients() {
        if (gradients == null) {
            throw new IllegalStateException("the adapter was opened for use only, not for training");
        }
        return gradients;
    }

    /** Returns whether it has gradients and moments. */
    public boolean trainable() {
        return gradients != null;
    }

    /** Returns the bytes of the buffers. */
    public long bytes() {
        if (gradients == null) {
            return parameters.bytes();
        }
        long moments = parameterList().stream()
                .mapToLong(p -> p.expAvg().bytes() + p.expAvgSq().bytes())
                .sum();
        return parameters.bytes() + gradients.bytes() + moments;
    }

    /** Returns the adapter of a linear layer, or null. */
    @Nullable
    LoraLinear find(int layer, Projection projection) {
        return byModuleId[projection.moduleId(layer)];
    }

    /** Returns the rank of each projection's adapter by module id, 0 where there is none. */
    int[] ranks() {
        int[] ranks = new int[byModuleId.length];
        linears.forEach(linear -> ranks[linear.moduleId()] = linear.rank());
        return ranks;
    }

    static int[] noRanks(ModelConfig model) {
        return new int[model.numHiddenLayers() * Projection.values().length];
    }

    /** Returns what {@link #ranks} of an adapter would be, without making it. */
    static int[] ranks(ModelConfig model, AdapterConfig config) throws FormatException {
        int[] ranks = noRanks(model);
        Map<String, ModelModule> targets = new LinkedHashMap<>();
        config.targets(model.modules()).forEach(target -> targets.put(target.name(), target));
        for (int layer = 0; layer < model.numHiddenLayers(); layer++) {
            for (Projection projection : Projection.values()) {
                String module = projection.module(layer);
                ranks[projection.moduleId(layer)] = targets.containsKey(module) ? config.rank(module) : 0;
            }
        }
        return ranks;
    }

    /** Returns the place in the forward pass of the first group with an adapter: nothing below needs a gradient. */
    int firstPlace() {
        LoraLinear first = linears.getFirst();
        return Projection.values()[first.moduleId() % Projection.values().length]
                .group()
                .place(first.layer());
    }

    /** Frees the buffers. */
    @Override
    public void close() {
        arena.close();
    }
}
