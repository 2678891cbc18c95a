"""llama.cpp's and PyTorch's side of generation: answers requests as bench/jmh's GenerateWorker does, a line of JSON each.

    python3 generate_worker.py llama.cpp|torch MODELS

Prefill ends when the first token is known; decode is `new` more tokens, one by one, each the most likely one. Both sides as fast as
their users can have it: llama.cpp through its C API, with its defaults; transformers with its cache, the head on the last token only.
"""
import json, pathlib, sys, time

from spec import Spec


def prompt(spec):
    return [i * 7919 % 49152 for i in range(spec.number("prompt"))]


def timed(step, spec):
    """step(ids) appends tokens to the sequence and returns the most likely next one."""
    ids, times = [], [time.perf_counter()]
    for i in range(spec.number("new") + 1):
        ids.append(step([ids[-1]] if ids else prompt(spec)))
        times.append(time.perf_counter())
    return {"prefill": times[1] - times[0], "decode": times[-1] - times[1], "ids": ids}


class Llama:
    """MODELS/<weights>.gguf"""

    def __init__(self, file, spec):
        import ctypes, llama_cpp, numpy

        self.api, self.numpy = llama_cpp, numpy
        self.silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(file).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise RuntimeError(f"llama.cpp does not open {file}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = spec.number("prompt") + spec.number("new") + 1
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = spec.number("threads")
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))

    def step(self, ids):
        tokens = (self.api.llama_token * len(ids))(*ids)
        status = self.api.llama_decode(self.context, self.api.llama_batch_get_one(tokens, len(ids)))  # logits of the last token
        if status:
            raise RuntimeError(f"llama_decode of {len(ids)} tokens returned {status}")
        return int(self.numpy.ctypeslib.as_array(self.api.llama_get_logits_ith(self.context, -1), (self.vocabulary,)).argmax())

    def generate(self, spec):
        self.api.llama_memory_clear(self.api.llama_get_memory(self.context), True)
        return timed(self.step, spec)

    def close(self):
        self.api.llama_free(self.context)
        self.api.llama_model_free(self.model)


class Torch:
    """MODELS/<weights>, computed in fp32."""

    def __init__(self, folder, spec):
        import torch, transformers, warnings

        warnings.simplefilter("ignore", FutureWarning)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(spec.number("threads"))
        self.torch = torch
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def generate(self, spec):
        cache = None

        def step(ids):
            nonlocal cache
            out = self.model(input_ids=self.torch.tensor([ids]), past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            return int(out.logits[0, -1].argmax())

        with self.torch.inference_mode():
            return timed(step, spec)

    def close(self):
        pass


def main():
    side, folder, opened = sys.argv[1], pathlib.Path(sys.argv[2]), {}

    def answer(request):
        if request == "release":
            while opened:
                opened.popitem()[1].close()
            return {}
        if request not in opened:
            spec = Spec(request)
            opened[request] = Llama(folder / f"{spec['weights']}.gguf", spec) if side == "llama.cpp" else Torch(folder / spec["weights"], spec)
        return opened[request].generate(Spec(request))

    for line in sys.stdin:
        try:
            reply = answer(line.strip())
        except Exception as e:  # the asker reports it beside the other results
            reply = {"error": f"{line.strip()}: {type(e).__name__}: {e}"}
        print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
