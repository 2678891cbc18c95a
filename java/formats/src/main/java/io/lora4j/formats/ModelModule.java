package io.lora4j.formats;

/**
 * A module of a model as PyTorch names it, for matching {@code target_modules}.
 *
 * @param name dotted path, for example {@code model.layers.0.self_attn.q_proj}
 * @param kind what it is
 * @param outFeatures N, rows of its weight; 0 if it has none
 * @param inFeatures K, columns of its weight; 0 if it has none
 * @param bias whether it has a bias of {@code outFeatures} values
 */
public record ModelModule(String name, Kind kind, long outFeatures, long inFeatures, boolean bias) {

    /** What a module is. */
    public enum Kind {
        /** A linear layer inside the blocks: takes LoRA. */
        LINEAR,
        /** The output head, a linear layer that {@code all-linear} leaves out. */
        HEAD,
        /** The token embedding. */
        EMBEDDING,
        /** An RMSNorm; its weight has {@code outFeatures} values. */
        NORM,
        /** A module without weights of its own. */
        CONTAINER
    }

    static ModelModule linear(String name, long out, long in, boolean bias) {
        return new ModelModule(name, Kind.LINEAR, out, in, bias);
    }

    static ModelModule norm(String name, long size) {
        return new ModelModule(name, Kind.NORM, size, 0, false);
    }

    static ModelModule container(String name) {
        return new ModelModule(name, Kind.CONTAINER, 0, 0, false);
    }
}
