"""llama.cpp's own server, with a model that is made here."""

import contextlib
import struct
import subprocess
import sys
import time
from typing import NamedTuple

import requests

from client import Client
from connections import tcp_sockets
from servers import running

WINDOW, SMALL, MAX_TOKENS = 4096, 512, 50
WIDTH, LAYERS = 16, 32  # the layers do nothing, but give a test time to cancel
PARTS = "attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_up ffn_down".split()
# What the model says after each token, and "One" after any other: it knows only the last token.
SAYS = {"One": "▁two", "▁two": "▁schön", "▁schön": "▁😀", "▁😀": ".", ".": "</s>"}
SAYS |= {"!": "On", "On": "▁and", "▁and": "▁on", "▁on": "▁and"}  # this has no end
SAYS |= {";": "<think>", "<think>": "▁hm", "▁hm": "</think>", "</think>": "One"}
SHORT, ENDLESS = "One two schön 😀.", "On" + " and on" * WINDOW
PROTOCOLS = {
    "openai": ("OPENAI_BASE_URL", "/v1", "tiny"),
    "anthropic": ("ANTHROPIC_BASE_URL", "", "claude-tiny"),
}
SERVE = """import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.model_alias = sys.argv[1], {sys.argv[2]}
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.n_batch = 128  # tokens of a prompt, behind which it looks who has hung up
params.n_ctx, params.n_parallel = int(sys.argv[3]), int(sys.argv[4])  # each slot has a part of it
params.endpoint_metrics = True
server = xllamacpp.Server(params)  # on a free port of the loopback interface
print(server.listening_address, flush=True)
sys.stdin.read()  # until whoever started it is gone
"""


PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"
# From such a template, llama.cpp knows which text is thinking; the prompt itself opens the tag.
THINKING = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' and message.reasoning_content %}"
    "<think>{{ message.reasoning_content }}</think>{% endif %}{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<think>{% endif %}"
)


def write_model(path, template):
    """A file as described by github.com/ggml-org/ggml/blob/master/docs/gguf.md."""
    words = sorted({*SAYS, *SAYS.values()} - {"</s>"})
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    places = {token: place for place, token in enumerate(SAYS, 1)}

    def string(text):
        return struct.pack("<Q", len(text.encode())) + text.encode()

    def matrix(pairs):
        """A row for each token: zeros except at the places in these pairs."""
        return (WIDTH, len(tokens)), [
            9 * ((token, place) in pairs) for token in tokens for place in range(WIDTH)
        ]

    texts = {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "llama",
        "tokenizer.chat_template": template,
    }
    numbers = dict.fromkeys(("embedding_length", "feed_forward_length"), WIDTH)
    numbers |= {"context_length": WINDOW, "block_count": LAYERS, "attention.head_count": 1}
    metadata = [string(name) + struct.pack("<I", 8) + string(text) for name, text in texts.items()]
    metadata += [
        string(f"llama.{name}") + struct.pack("<II", 4, number) for name, number in numbers.items()
    ]
    metadata += [string("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)]
    metadata += [
        string("tokenizer.ggml.tokens")
        + struct.pack("<IIQ", 9, 8, len(tokens))
        + b"".join(map(string, tokens))
    ]
    # 4: the tokenizer finds it as a whole in a prompt.
    kinds = [4 if "think>" in token else 1 for token in tokens]
    metadata += [
        string("tokenizer.ggml.token_type")
        + struct.pack(f"<IIQ{len(kinds)}i", 9, 5, len(kinds), *kinds)
    ]
    ones, zeros = ((WIDTH,), [1] * WIDTH), ((WIDTH, WIDTH), [0] * WIDTH**2)
    tensors = {
        "token_embd": matrix({(token, places.get(token, 0)) for token in tokens}),
        "output_norm": ones,
    }
    tensors["output"] = matrix(
        {("One", 0), *((said, places[token]) for token, said in SAYS.items())}
    )
    for layer in range(LAYERS):
        tensors |= {
            f"blk.{layer}.{name}": ones if name.endswith("norm") else zeros for name in PARTS
        }
    head, data = (
        struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata)) + b"".join(metadata),
        b"",
    )
    for name, (shape, values) in tensors.items():
        head += string(f"{name}.weight") + struct.pack(
            f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data)
        )
        data += struct.pack(f"<{len(values)}f", *values)  # the alignment is 32 bytes
    path.write_bytes(head + bytes(-len(head) % 32) + data)


class Llama(NamedTuple):
    """A llama server, the settings of a Parley that uses it, and a user of such a Parley."""

    url: str
    model: str
    settings: dict
    alice: Client

    def connections(self, states=("01", "08")):
        """The ports with connections to it that are open (01), or closed by it alone (08;
        Linux's net/tcp_states.h)."""
        server = f":{int(self.url.rpartition(':')[2]):04X}"
        return {line[1] for line in tcp_sockets() if line[2].endswith(server) and line[3] in states}

    def is_busy(self):
        return any(
            slot["is_processing"] for slot in requests.get(self.url + "/slots", timeout=10).json()
        )


def wait_until(is_so, seconds=20):
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextlib.contextmanager
def llama_server(folder, model, window, template=PLAIN, slots=1):
    """Yields its process and its URL."""
    write_model(folder / "tiny.gguf", template)
    command = [sys.executable, "-c", SERVE, folder / "tiny.gguf", model, str(window), str(slots)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            yield process, url
        finally:
            process.kill()


@contextlib.contextmanager
def serving(folder, protocol, window, template=PLAIN):
    setting, path, model = PROTOCOLS[protocol]
    with (
        llama_server(folder, model, window, template) as (_, url),
        running(folder, **{setting: url + path}) as server,
    ):
        yield Llama(url, model, {setting: url + path}, server.client())
