/** Models, LoRA layers, optimizers, data, the training loop, checkpoints. */
module io.lora4j.train {
    requires transitive io.lora4j.formats;
    requires static org.jspecify;
    requires org.slf4j;
}
