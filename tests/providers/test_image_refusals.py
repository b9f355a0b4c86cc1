"""Refusals of images: which may be about the images of a request, and which say that the model sees none.

The words are those that the providers really sent; `providers/faults.toml` has the sources.
"""

import json
from types import SimpleNamespace

import pytest

from protocols import PAGE
from providers.faults import Faults


def openai(message, code=None, kind="invalid_request_error"):
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def anthropic(message, kind="invalid_request_error"):
    return {"type": "error", "error": {"type": kind, "message": message}}


def vllm(message):
    return {"object": "error", "message": message, "type": "BadRequestError", "code": 400}


def llamacpp(message, code=500):
    return {"error": {"code": code, "message": message, "type": "server_error"}}


def deepseek(message):
    return openai(f"Failed to deserialize the JSON body into the target type: {message}")


NO_ENDPOINT = "No endpoints found that support image input"
NO_MMPROJ = (
    "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
)
UNKNOWN_PART = (
    'Failed to parse messages: Unsupported content part type: "image_url"; messages = [ { "role": "user", "content": '
    '[ { "type": "text", "text": "Is the model of my API key not found? Credit balance is too low, maximum context length." '
)
ENUM = "data did not match any variant of untagged enum ChatCompletionRequestContent at line 1 column 18231"
STRING = "'messages.0' : for 'role:user' the following must be satisfied[('messages.0.content' : value must be a string)]"
GEMINI = {"code": 400, "status": "INVALID_ARGUMENT"}


BLIND = {  # the model sees no images
    "openai": (400, openai("Invalid content type. image_url is only supported by certain models.")),
    "ollama": (400, {"error": "does not support vision"}),
    "ollama, older": (
        500,
        openai("this model is missing data required for image input", kind="api_error"),
    ),
    "ollama cloud": (400, {"error": "this model does not support image input (ref: b8bd630e)"}),
    "volcengine": (400, openai("Model do not support image input. Request id: 021788884720158")),
    "llama.cpp": (500, llamacpp(NO_MMPROJ)),
    "llama.cpp, with another status": (400, llamacpp(NO_MMPROJ, 400)),
    "llama.cpp, old": (500, llamacpp("image input is not supported by this server")),
    "llama.cpp, older": (500, llamacpp(UNKNOWN_PART)),
    "lm studio": (400, {"error": "Model does not support images. Please use a model that does."}),
    "vllm": (400, vllm("facebook/opt-125m is not a multimodal model None")),
    "vllm, limited": (400, vllm("At most 0 image(s) may be provided in one prompt.")),
    "deepseek": (
        400,
        deepseek("messages[7]: unknown variant `image_url`, expected `text` at line 1"),
    ),
    "deepseek, older": (422, deepseek(f"messages[1]: {ENUM}")),
    "deepseek, oldest": (
        422,
        deepseek("messages[2]: invalid type: sequence, expected a string at line 1"),
    ),
    "openrouter": (404, {"error": {"message": NO_ENDPOINT, "code": 404}}),
    "xiaomi": (404, {"error": {"code": "404", "message": NO_ENDPOINT, "param": "", "type": ""}}),
    "groq": (400, openai(STRING)),
    "groq, older": (400, openai("message[0].content must be a string")),
    "mistral": (
        400,
        {
            "object": "Error",
            "message": "Image input is not enabled for this model",
            "type": "invalid_request_error",
            "code": 3051,
        },
    ),
    "gemini": (
        400,
        [
            {
                "error": GEMINI
                | {"message": "Image input modality is not enabled for models/gemma-3-1b-it"}
            }
        ],
    ),
    "bedrock": (
        400,
        openai(
            "This model doesn't support the image field for user messages. Remove image and try again."
        ),
    ),
    "xai": (
        400,
        {"code": "invalid-argument", "error": "Image inputs are not supported by this model."},
    ),
    "copilot": (
        400,
        {"error": {"message": 'model "claude-opus-4.5" not supported for vision', "code": ""}},
    ),
    "z.ai": (
        400,
        {"error": {"code": "1210", "message": "messages.content.type 参数非法，取值范围 ['text']"}},
    ),
    "fireworks": (
        400,
        openai(
            "Cannot preprocess image len(combined_imgs) = 1, len(image_ranges) = 0, please provide valid images"
        ),
    ),
    "dashscope": (
        400,
        openai(
            "The provided messages input is invalid. The error info is [Unexpected item type in content.]"
        ),
    ),
}
BASE64 = "messages.1.content.2.image.source.base64"
SUSPECTED = {  # this may be about the images
    "anthropic, bytes": (
        400,
        anthropic(f"{BASE64}: image exceeds 5 MB maximum: 6275800 bytes > 5242880 bytes"),
    ),
    "anthropic, pixels": (
        400,
        anthropic(
            f"{BASE64}.data: At least one of the image dimensions exceed max allowed size: 8000 pixels"
        ),
    ),
    "anthropic, many": (
        400,
        anthropic(
            f"{BASE64}.data: At least one of the image dimensions exceed max allowed size for many-image requests: 2000 pixels"
        ),
    ),
    "anthropic, unreadable": (400, anthropic("Could not process image")),
    "openai, unreadable": (
        400,
        openai(
            "You uploaded an unsupported image. Please make sure your image has of one the following formats: ['png'].",
            "invalid_image_format",
        ),
    ),
    "vllm, many": (400, vllm("At most 1 image(s) may be provided in one request.")),
    "copilot, many": (
        400,
        openai(
            "Too many images in request: 11 images provided, but the model supports a maximum of 10 images."
        ),
    ),
    "new-api, many": (500, openai("too many images in the message, max allowed is 16")),
    "ollama, many": (
        500,
        openai("this model only supports one image while more than one image requested"),
    ),
    "ollama, unreadable": (400, openai("invalid image input")),
    "llama.cpp, unreadable": (400, llamacpp("Failed to load image or audio file", 400)),
    "gemini, unreadable": (
        400,
        [{"error": GEMINI | {"message": "Unable to process input image."}}],
    ),
    "lm studio, a list": (
        400,
        {"error": "Invalid 'content': 'content' field must be a string or an array of objects.."},
    ),
    "xiaomi, a parameter": (
        400,
        {"error": {"code": "400", "message": "Param Incorrect", "param": "`text` is not set"}},
    ),
    "tokens of an image's pixels": (
        400,
        openai("The image has too many tokens: reduce its pixels; context of 4096."),
    ),
    "a size limit that is an image's": (400, openai("image size limit exceeded by 3 MB")),
    "no words": (400, PAGE),
    "an unknown status": (418, ""),
    "a failure": (500, anthropic("Internal server error", "api_error")),
    "no memory": (500, openai("CUDA out of memory.")),
    "nothing there": (404, {"detail": "Not Found"}),
}
LARGE = {  # a 413, so that turns may be left out; but images first
    "anthropic": (413, anthropic("Request exceeds the maximum size", "request_too_large")),
    "a proxy": (413, PAGE),
    "an image": (413, openai("image too large for this context")),
    "bedrock": (400, openai("Input is too long for requested model.")),
}
FULL = {  # a 413, and turns are left out
    "anthropic": (400, anthropic("prompt is too long: 213462 tokens > 200000 maximum")),
    "openai": (400, openai("Too many.", "context_length_exceeded")),
    "groq": (
        413,
        openai(
            "Request too large on tokens per minute (TPM): Limit 6000, Requested 9000, please reduce",
            "rate_limit",
        ),
    ),
    "llama.cpp": (500, llamacpp("the request exceeds the available context size")),
    "vllm": (
        400,
        vllm(
            "The decoder prompt (length 16476) is longer than the maximum model length of 16384. Make sure that "
            "`max_model_len` is no smaller than the number of text tokens plus multimodal tokens. For image inputs, the "
            "number of image tokens depends on the number of images, and possibly their aspect ratios as well."
        ),
    ),
    "counted": (
        400,
        openai(
            "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens (5000 in the "
            "messages, 4000 in the completion)."
        ),
    ),
}
OTHERS = {  # this is about something else
    "a parameter": (
        400,
        openai(
            "Unsupported parameter: 'max_tokens' is not supported with this model.",
            "unsupported_parameter",
        ),
    ),
    "a long answer": (
        400,
        anthropic("max_tokens: 9999 > 8192, which is the maximum allowed number of output tokens"),
    ),
    "a model": (404, openai("The model `m-0` does not exist.", "model_not_found")),
    "a model, by openrouter": (
        400,
        {"error": {"message": "m-0 is not a valid model ID", "code": 400}},
    ),
    "a key": (400, openai("API key not valid. Please pass a valid API key.")),
    "a key that is missing": (500, openai("No API key was sent.")),
    "a key that is refused": (401, openai("Incorrect API key provided", "invalid_api_key")),
    "no permission": (403, anthropic("No", "permission_error")),
    "no permission for images": (403, openai("this model does not support image input")),
    "no credit": (402, openai(NO_ENDPOINT)),
    "no credit, with 400": (
        400,
        anthropic("Your credit balance is too low to access the Anthropic API."),
    ),
    "a rate": (429, anthropic("Slow down", "rate_limit_error")),
    "a rate of images": (429, openai("too many images")),
    "no answer": (200, openai("this model does not support image input")),
    "a gateway": (502, openai("this model does not support image input")),
    "overloaded": (503, openai("Overloaded", "server_is_overloaded")),
    "late": (504, PAGE),
    "overloaded, as Anthropic says": (529, anthropic("Overloaded", "overloaded_error")),
}


def refused(status, body, **headers):
    data = (body if isinstance(body, str) else json.dumps(body)).encode()
    response = SimpleNamespace(status=status, headers=headers, read_some=lambda most, seconds: data)
    return Faults("openai", None, "http://127.0.0.1:9/v1").of_response(response)


@pytest.mark.parametrize("status, body", BLIND.values(), ids=BLIND)
def test_known_words_say_that_a_model_sees_nothing(status, body):
    error = refused(status, body, **{"x-should-retry": "true"})
    assert error.sees_nothing and error.suspects_images and not error.retryable
    assert (error.status, error.pointer, error.window) == (502, None, None)
    assert error.message.startswith("The provider openai refused the request: ")


@pytest.mark.parametrize("status, body", SUSPECTED.values(), ids=SUSPECTED)
def test_a_refusal_may_be_about_images(status, body):
    error = refused(status, body)
    assert error.suspects_images and not error.sees_nothing
    assert error.status == 502


@pytest.mark.parametrize("status, body", LARGE.values(), ids=LARGE)
def test_images_are_suspected_before_the_length_of_the_conversation(status, body):
    error = refused(status, body)
    assert (error.status, error.suspects_images, error.sees_nothing) == (413, True, False)


@pytest.mark.parametrize("status, body", FULL.values(), ids=FULL)
def test_a_full_window_is_not_about_images(status, body):
    error = refused(status, body)
    assert (error.status, error.suspects_images, error.sees_nothing) == (413, False, False)


@pytest.mark.parametrize("status, body", OTHERS.values(), ids=OTHERS)
def test_other_refusals_are_not_about_images(status, body):
    error = refused(status, body)
    assert not error.suspects_images and not error.sees_nothing


IN_STREAMS = {  # an event of a stream, which has no status: whether it suspects images, and says that the model sees none
    "blind": (llamacpp(NO_MMPROJ), (True, True)),
    "blind, by a code": ({"error": {"message": NO_ENDPOINT, "code": 404}}, (True, True)),
    "an image": (anthropic("Could not process image"), (True, False)),
    "unknown": (anthropic("Internal", "api_error"), (True, False)),
    "overloaded": (anthropic("Overloaded", "overloaded_error"), (False, False)),
    "a rate": (openai(NO_MMPROJ, kind="rate_limit_error"), (False, False)),
    "a window": (openai("Too long", "context_length_exceeded"), (False, False)),
    "a model": (openai("No such model"), (False, False)),
}


@pytest.mark.parametrize("event, expected", IN_STREAMS.values(), ids=IN_STREAMS)
def test_an_error_in_a_stream_is_judged_by_its_words(event, expected):
    error = Faults("openai", None, "http://127.0.0.1:9/v1").in_stream(event)
    assert (error.suspects_images, error.sees_nothing) == expected


def test_a_refused_parameter_is_still_learned_from_words_about_images():
    """A server that quotes the messages may name an image in any refusal."""
    body = {
        "detail": [
            {
                "type": "extra_forbidden",
                "loc": ["body", "stream_options"],
                "input": "image too large",
            }
        ]
    }
    assert refused(422, body).unsupported == {"stream_options": True}
