"""What a provider's list of its models says about images, in any of the shapes that servers use."""

from typing import Any

# Ollama's models are owned by the namespace of their name, which is this one if it has none
# (ollama/ollama, openai/openai.go, ToListCompletion).
OLLAMA_OWNER = "library"
# Only Ollama's own list has `capabilities` (ollama/ollama, api/types.go, ListModelResponse).
OLLAMA_LIST = "/api/tags"


def images_in(entries: Any) -> dict[str, bool]:
    """The names of the models in this list that say whether they see images."""
    found: dict[str, bool] = {}
    for entry in entries if isinstance(entries, list) else ():
        sees = _sees_images(entry) if isinstance(entry, dict) else None
        if sees is not None:
            names = (entry.get("id"), entry.get("model"), entry.get("name"))
            found |= {name: sees for name in names if isinstance(name, str)}
    return found


def _sees_images(entry: dict[str, Any]) -> bool | None:
    """Whether the model of this entry sees images; None if the entry does not say.

    OpenRouter (openrouter.ai/docs/client-sdks/python/components/architecture), and llama.cpp with
    several models (ggml-org/llama.cpp#22952):
        {"id": "m", "architecture": {"input_modalities": ["text", "image"]}}
    llama.cpp with one model, in `models` next to `data` (ChatLunaLab/chatluna#771):
        {"name": "m", "model": "m", "capabilities": ["completion", "multimodal"]}
    Ollama, in its own list (ollama/ollama, api/types.go):
        {"name": "m", "model": "m", "capabilities": ["completion", "vision"]}
    Anthropic (anthropics/anthropic-sdk-python, types/model_capabilities.py):
        {"id": "m", "capabilities": {"image_input": {"supported": true}}}
    Mistral (mistralai/client-python, models/modelcapabilities.py):
        {"id": "m", "capabilities": {"vision": true}}
    """
    architecture, capabilities = entry.get("architecture"), entry.get("capabilities")
    if isinstance(architecture, dict):
        modalities = architecture.get("input_modalities")
        if isinstance(modalities, list):
            return "image" in modalities
    if isinstance(capabilities, list):
        return "vision" in capabilities or "multimodal" in capabilities
    if isinstance(capabilities, dict):
        said = capabilities.get("image_input", capabilities.get("vision"))
        said = said.get("supported") if isinstance(said, dict) else said
        return said if isinstance(said, bool) else None
    return None
