package io.lora4j.cli;

import io.lora4j.formats.Tokenizer;
import io.lora4j.kernels.Device;
import io.lora4j.kernels.Queue;
import io.lora4j.train.Sources;
import io.lora4j.train.model.Adapter;
import io.lora4j.train.model.FourBit;
import io.lora4j.train.model.LlamaModel;
import io.lora4j.train.model.ModelForm;
import io.lora4j.train.model.WeightMode;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/** A model with its tokenizer, and maybe an adapter, opened for evaluation or generation. One thread at a time. */
final class Session implements AutoCloseable {
    private final Deque<AutoCloseable> opened = new ArrayDeque<>();
    private final Path dir;
    private final Optional<Path> adapterDir;
    private final LlamaModel model;
    private final Tokenizer tokenizer;
    private final @Nullable Adapter adapter;

    /**
     * Opens everything; what was opened is closed again if a later part fails.
     *
     * @param modelName folder of the base model, or its name in the Hugging Face cache
     * @param adapterName folder of an adapter, or its name there
     * @param threads 0 = every CPU that this process may use
     * @param fourBit how a dense model is quantized while it is loaded, if it is
     */
    static Session open(Path modelName, Optional<Path> adapterName, int threads, Optional<FourBit> fourBit)
            throws IOException {
        Path modelDir = Sources.model(modelName).dir();
        Optional<Path> adapterDir =
                adapterName.isPresent() ? Optional.of(Sources.adapter(adapterName.get())) : Optional.empty();
        Deque<AutoCloseable> opened = new ArrayDeque<>();
        try {
            return new Session(opened, modelDir, adapterDir, threads, fourBit);
        } catch (Throwable t) {
            closeAll(opened, t);
            throw t;
        }
    }

    private Session(
            Deque<AutoCloseable> resources,
            Path modelDir,
            Optional<Path> adapterDir,
            int threads,
            Optional<FourBit> fourBit)
            throws IOException {
        this.dir = modelDir;
        this.adapterDir = adapterDir;
        Device device = push(resources, Device.cpu());
        Queue queue = push(resources, threads == 0 ? Queue.create(device) : Queue.create(device, threads));
        tokenizer = push(resources, Tokenizer.open(modelDir));
        model = push(
                resources,
                LlamaModel.open(modelDir, queue, ModelForm.of(WeightMode.PACK).withFourBit(fourBit.orElse(null))));
        adapter = adapterDir.isPresent() ? push(resources, Adapter.load(model, adapterDir.get(), false)) : null;
        opened.addAll(resources);
    }

    private static <T extends AutoCloseable> T push(Deque<AutoCloseable> resources, T resource) {
        resources.push(resource);
        return resource;
    }

    /** Returns the folder of the base model. */
    Path dir() {
        return dir;
    }

    /** Returns the folder of the adapter, if there is one. */
    Optional<Path> adapterDir() {
        return adapterDir;
    }

    LlamaModel model() {
        return model;
    }

    Tokenizer tokenizer() {
        return tokenizer;
    }

    @Nullable
    Adapter adapter() {
        return adapter;
    }

    @Override
    public void close() {
        IllegalStateException failure = new IllegalStateException("closing failed");
        closeAll(opened, failure);
        if (failure.getSuppressed().length > 0) {
            throw failure;
        }
    }

    private static void closeAll(Deque<AutoCloseable> resources, Throwable failure) {
        while (!resources.isEmpty()) {
            try {
                resources.pop().close();
            } catch (Exception e) {
                failure.addSuppressed(e);
            }
        }
    }
}
