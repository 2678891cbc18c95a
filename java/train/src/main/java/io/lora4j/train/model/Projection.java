package io.lora4j.train.model;

/** The linear layers of a decoder block, in the order of the forward pass. */
enum Projection {
    Q("self_attn.q_proj"),
    K("self_attn.k_proj"),
    V("self_attn.v_proj"),
    O("self_attn.o_proj"),
    GATE("mlp.gate_proj"),
    UP("mlp.up_proj"),
    DOWN("mlp.down_proj");

    /** Projections that share their input, and so are one lora operation. */
    enum Group {
        QKV(Q, K, V),
        OUT(O),
        GATE_UP(GATE, UP),
        DOWN(Projection.DOWN);

        private final Projection[] members;

        Group(Projection... members) {
            this.members = members;
        }

        Projection[] members() {
            return members;
        }

        /** Returns a number that grows along the forward pass, over all layers. */
        int place(int layer) {
            return layer * values().length + ordinal();
        }
    }

    private final String path;

    Projection(String path) {
        this.path = path;
    }

    /** Returns the module's name as Hugging Face has it. */
    String module(int layer) {
        return "model.layers." + layer + "." + path;
    }

    /** Returns the number by which dropout knows the module: 7 · layer + place in the block. */
    int moduleId(int layer) {
        return layer * values().length + ordinal();
    }

    Group group() {
        return switch (this) {
            case Q, K, V -> Group.QKV;
            case O -> Group.OUT;
            case GATE, UP -> Group.GATE_UP;
            case DOWN -> Group.DOWN;
        };
    }
}
