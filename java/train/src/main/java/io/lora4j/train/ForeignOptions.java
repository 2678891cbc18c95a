package io.lora4j.train;

import java.util.ArrayList;
import java.util.List;

/**
 * What {@code trl sft} and PEFT's {@code LoraConfig} can be told and {@code lora4j train} cannot (TRL 1.16, transformers 5.24,
 * PEFT 0.21). A test goes through all of their options: each is one of {@link TrainOptions} or is listed here.
 */
final class ForeignOptions {
    private static final String NONE = "none";
    private static final String OFF = "false";

    private final List<ForeignOption> all = new ArrayList<>();

    private ForeignOptions() {}

    /** Returns all of them. */
    static List<ForeignOption> list() {
        ForeignOptions options = new ForeignOptions();
        options.numbers();
        options.adapter();
        options.optimizer();
        options.data();
        options.reports();
        options.machine();
        return List.copyOf(options.all);
    }

    /** Options that may only be off, or have the one value that is how lora4j works. */
    private void only(List<String> harmless, String why, String... names) {
        for (String name : names) {
            all.add(new ForeignOption(name, harmless, why));
        }
    }

    /** Options that concern what lora4j has not got to begin with. */
    private void without(String why, String... names) {
        for (String name : names) {
            all.add(new ForeignOption(name, List.of(), why));
        }
    }

    private void numbers() {
        String float32 = "it computes in float32, whatever type the base is stored in";
        only(List.of(OFF), float32, "fp16", "bf16_full_eval", "fp16_full_eval", "tf32");
        only(List.of("float32", "auto"), float32, "dtype", "torch_dtype");
        only(List.of(OFF), "a dense model is quantized to 4 bits only, by load_in_4bit", "load_in_8bit");
        only(List.of("float32"), float32, "bnb_4bit_compute_dtype");
        without("codes are kept as bytes", "bnb_4bit_quant_storage");
        without("attention is one kernel", "attn_implementation", "padding_free", "pad_to_multiple_of", "use_cache");
        only(List.of(OFF), "its own kernels are used", "use_liger_kernel", "torch_compile");
        without("PyTorch is not used", "torch_compile_backend", "torch_compile_mode", "torch_empty_cache_steps");
        without("PyTorch is not used", "liger_kernel_config", "use_cpu", "full_determinism");
        without("recomputing has one form", "gradient_checkpointing_kwargs", "activation_checkpointing_kwargs");
        only(List.of(OFF), "activations stay in memory; see gradient_checkpointing", "activation_offloading");
    }

    private void adapter() {
        only(List.of("true"), "it trains adapters only", "use_peft");
        only(List.of("causal_lm"), "it trains causal language models", "lora_task_type", "task_type");
        only(List.of("lora"), "it trains LoRA", "peft_type");
        only(List.of(NONE), "the option is lora_r", "r");
        only(List.of(NONE), "the option is lora_target_modules", "target_modules");
        String linear = "it trains low-rank factors of linear layers and nothing else";
        only(List.of(OFF), "DoRA is not built", "use_dora");
        only(List.of(OFF), "QA-LoRA is not built", "use_qalora");
        only(List.of(NONE), "BD-LoRA is not built", "use_bdlora");
        only(List.of(NONE), linear, "bias", "modules_to_save", "lora_modules_to_save", "target_parameters");
        only(List.of(NONE), linear, "lora_target_parameters", "trainable_token_indices", "layer_replication");
        only(List.of(OFF), linear, "lora_bias", "fan_in_fan_out", "ensure_weight_tying");
        only(List.of(NONE, "{}"), "LoftQ's options are loftq_iter and load_in_4bit", "loftq_config");
        only(List.of("4"), "LoftQ quantizes to 4 bits", "loftq_bits");
        only(List.of(NONE), "this variant of LoRA is not built", "arrow_config", "kasa_config", "velora_config");
        only(List.of(NONE), "this variant of LoRA is not built", "monteclora_config", "alora_invocation_tokens");
        only(List.of(NONE), "Megatron is not used", "megatron_config");
        only(List.of(NONE), "the layers of every supported model are found without it", "layers_pattern");
        without("the variant is not built", "eva_config", "corda_config", "lora_ga_config");
        without("the variant is not built", "qalora_group_size", "megatron_core", "runtime_config");
        without("PEFT's own bookkeeping", "auto_mapping", "inference_mode", "peft_version");
        only(List.of(NONE), "the option is model_name_or_path", "base_model_name_or_path");
        only(List.of("main"), "write the model as owner/name@revision", "model_revision", "revision");
        only(List.of(NONE), "the model is taken as it is stored", "model_init_kwargs", "router_aux_loss_coef");
        only(List.of(OFF), "no code of a repository is run", "trust_remote_code");
    }

    private void optimizer() {
        only(List.of(NONE), "AdamW's numbers are options of their own", "optim_args", "optim_target_modules");
        only(List.of(NONE), "the schedules have no parameters but warm-up", "lr_scheduler_kwargs");
        only(List.of("0", "0.0"), "targets are not smoothed", "label_smoothing_factor");
        only(List.of(NONE), "no noise is added to embeddings", "neftune_noise_alpha");
        only(List.of("nll", "chunked_nll"), "the loss is cross-entropy", "loss_type");
        only(List.of(NONE), "the order of the rows follows from seed", "data_seed");
        only(List.of(OFF), "a run uses the batch size that it is given", "auto_find_batch_size");
        only(List.of(OFF), "every checkpoint can be gone on from, exactly", "save_only_model", "ignore_data_skip");
        without("there is one device", "average_tokens_across_devices");
    }

    private void data() {
        String files = "it reads local JSONL files; give one, or a folder with train.jsonl, as train_file";
        only(List.of(NONE), files, "dataset_name", "dataset_config", "dataset_kwargs");
        only(List.of(OFF), files, "dataset_streaming");
        only(List.of("train"), "the file of a folder is train.jsonl", "dataset_train_split");
        only(List.of("test"), "the files of a folder are valid.jsonl and test.jsonl", "dataset_test_split");
        without("rows are encoded in memory", "dataset_num_proc", "dataloader_num_workers", "dataloader_pin_memory");
        without("rows are encoded in memory", "dataloader_persistent_workers", "dataloader_prefetch_factor");
        without("rows are encoded in memory", "dataloader_multiprocessing_context", "dataloader_in_order");
        without("fields that are not used are skipped", "remove_unused_columns", "length_column_name", "label_names");
        only(List.of(OFF), "the last batch of an epoch is trained on", "dataloader_drop_last");
        only(List.of("random"), "rows are shuffled in every epoch", "train_sampling_strategy");
        without("rows are shuffled in every epoch", "shuffle_dataset");
        only(List.of(OFF), "rows are never grouped by length", "group_by_length");
        only(List.of("keep_start"), "rows are cut at the end", "truncation_mode");
        only(List.of(OFF), "evaluation rows are never packed, the loss does not depend on it", "eval_packing");
        only(List.of(NONE), "EOS is the tokenizer's eos_token", "eos_token");
        without("nothing is padded", "pad_token");
    }

    private void reports() {
        String file = "the metrics are in metrics.jsonl";
        only(List.of(NONE, "[]", "[none]"), file, "report_to");
        only(List.of("steps"), file + ", a line every logging_steps", "logging_strategy");
        only(List.of(OFF), file + "; logging_steps 1 has the first step too", "logging_first_step");
        without(file, "run_name", "project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id");
        without(file, "log_level", "log_level_replica", "log_on_each_node", "disable_tqdm", "skip_memory_metrics");
        without("a loss that is not finite ends the run", "logging_nan_inf_filter");
        only(List.of("no", OFF), "num_tokens is always there", "include_num_input_tokens_seen");
        only(List.of(OFF), "nothing is uploaded", "push_to_hub", "hub_always_push");
        without("nothing is uploaded", "hub_model_id", "hub_strategy", "hub_token", "hub_private_repo", "hub_revision");
        without("evaluation is loss and accuracy", "prediction_loss_only", "eval_accumulation_steps");
        without("evaluation is loss and accuracy", "eval_do_concat_batches", "eval_use_gather_object");
        without("evaluation is loss and accuracy", "batch_eval_metrics", "include_for_metrics");
        only(List.of("0", "0.0"), "evaluations begin with the first that eval_strategy has", "eval_delay");
        only(List.of(OFF), "lora4j eval gives the loss before training", "eval_on_start");
        only(List.of(NONE, ""), "there is no debugger of PyTorch", "debug");
        without("set by eval_strategy and the command", "do_train", "do_eval", "do_predict");
    }

    private void machine() {
        String one = "a run is one process on one CPU";
        only(List.of(NONE, "", OFF), one, "deepspeed", "fsdp", "parallelism_config");
        only(List.of("-1", "0"), one, "local_rank");
        without(one, "fsdp_config", "accelerator_config", "save_on_each_node", "ignore_bias_buffers");
        without(one, "ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters");
        without(one, "ddp_static_graph", "ddp_timeout");
        only(List.of(OFF), "Ctrl-C saves a checkpoint", "enable_jit_checkpoint");
        only(List.of(OFF), "there are no callbacks to restore", "restore_callback_states_from_checkpoint");
    }
}
