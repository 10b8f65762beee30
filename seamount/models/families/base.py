"""What the configs of all families share: which fields count, which do not, and how old and new files say RoPE."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, model_validator

from seamount.config import Config
from seamount.models.parts.rope import LinearScaling, Llama3Scaling, RopeSpec, YarnScaling
from seamount.models.spec import DenseSpec, LayerSpec, ModelSpec

Size = Annotated[int, Field(gt=0, le=2**31)]
LayerCount = Annotated[int, Field(gt=0, le=10_000)]

# Fields that say how a checkpoint was trained, stored or is to be sampled from, and leave its logits alone.
HARMLESS = frozenset(
    """
    _attn_implementation _name_or_path add_cross_attention architectures attention_dropout attn_implementation
    auto_map aux_loss_alpha bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id ep_size exponential_decay_length_penalty finetuning_task
    forced_bos_token_id forced_eos_token_id id2label is_decoder is_encoder_decoder is_llama_config label2id
    length_penalty max_length min_length no_repeat_ngram_size num_beam_groups num_beams num_return_sequences
    output_attentions output_hidden_states output_router_logits output_scores pad_token_id prefix pretraining_tp
    problem_type pruned_heads remove_invalid_values repetition_penalty return_dict return_dict_in_generate
    router_aux_loss_coef sep_token_id seq_aux suppress_tokens task_specific_params temperature tf_legacy_loss
    tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers_version typical_p
    unsloth_fixed unsloth_version use_bfloat16 use_cache
    """.split()  # noqa: SIM905 - one name a line would take a page
)


class _NoScaling(Config):
    rope_type: Literal["default"]
    partial_rotary_factor: Literal[1] = 1

    def scaling(self, context_length: int) -> None:
        return None


class _Linear(Config):
    rope_type: Literal["linear"]
    factor: PositiveFloat

    def scaling(self, context_length: int) -> LinearScaling:
        return LinearScaling(self.factor)


class _Yarn(Config):
    rope_type: Literal["yarn"]
    factor: PositiveFloat
    original_max_position_embeddings: Size | None = None
    beta_fast: float = 32
    beta_slow: float = 1
    mscale: float | None = None
    mscale_all_dim: float | None = None
    attention_factor: float | None = None
    truncate: bool = True

    def scaling(self, context_length: int) -> YarnScaling:
        values = self.model_dump(exclude={"rope_type"})
        values["original_max_position_embeddings"] = self.original_max_position_embeddings or context_length
        return YarnScaling(**values)


class _Llama3(Config):
    rope_type: Literal["llama3"]
    factor: PositiveFloat
    low_freq_factor: PositiveFloat
    high_freq_factor: PositiveFloat
    original_max_position_embeddings: Size

    def scaling(self, context_length: int) -> Llama3Scaling:
        return Llama3Scaling(**self.model_dump(exclude={"rope_type"}))


RopeScaling = Annotated[_NoScaling | _Linear | _Yarn | _Llama3, Field(discriminator="rope_type")]


class _Fp8(Config):
    """FP8 as V3's checkpoints have it; decoded on loading, so nothing but the block's shape and code matters."""

    quant_method: Literal["fp8"]
    fmt: Literal["e4m3"] = "e4m3"
    activation_scheme: Literal["dynamic"] = "dynamic"
    weight_block_size: tuple[Literal[128], Literal[128]]
    scale_fmt: Literal["ue8m0"] | None = None


class PackedConfig(Config):
    """Our own packed weights. Another version's layout or names differ, so it is not read."""

    quant_method: Literal["seamount"]
    format: Literal["int4", "int8"]
    version: Literal[1]


class FamilyConfig(Config):
    """The fields that every family has, under their published names."""

    INERT: ClassVar[frozenset[str]] = frozenset()  # further harmless fields of one family

    model_type: str
    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: LayerCount
    num_attention_heads: Size
    max_position_embeddings: Size
    rms_norm_eps: PositiveFloat = 1e-6
    initializer_range: PositiveFloat = 0.02
    hidden_act: Literal["silu"] = "silu"
    tie_word_embeddings: bool = False
    rope_theta: PositiveFloat = 10_000.0
    rope_scaling: RopeScaling = _NoScaling(rope_type="default")
    quantization_config: Annotated[_Fp8 | PackedConfig, Field(discriminator="quant_method")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _tidy(cls, values: Any) -> Any:
        """Leave out what is harmless or off, and bring both generations of RoPE fields into one form."""
        if not isinstance(values, Mapping):
            return values
        known = cls.model_fields
        kept = {
            name: value
            for name, value in values.items()
            if name in known or not (name in HARMLESS or name in cls.INERT or value is None or value is False)
        }
        new = kept.pop("rope_parameters", None)
        scaling = new if new is not None else kept.get("rope_scaling")
        if scaling is None:
            kept.pop("rope_scaling", None)
        elif isinstance(scaling, Mapping):
            scaling = {name: value for name, value in scaling.items() if value is not None}
            old_type = scaling.pop("type", "default")
            scaling.setdefault("rope_type", old_type)
            if "rope_theta" in scaling:
                kept["rope_theta"] = scaling.pop("rope_theta")
            kept["rope_scaling"] = scaling
        return kept

    @abstractmethod
    def spec(self) -> ModelSpec:
        """The shape that this config describes."""

    def rope(self, dim: int, *, interleaved: bool) -> RopeSpec:
        """The rotary embedding of `dim` channels."""
        return RopeSpec(dim, self.rope_theta, interleaved, self.rope_scaling.scaling(self.max_position_embeddings))

    def dense(self) -> DenseSpec:
        """The dense feed-forward."""
        return DenseSpec(self.intermediate_size)

    def model(self, layers: tuple[LayerSpec, ...], mtp_layers: tuple[LayerSpec, ...] = ()) -> ModelSpec:
        """The whole shape around these layers."""
        return ModelSpec(
            model_type=self.model_type,
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            context_length=self.max_position_embeddings,
            layers=layers,
            rms_norm_eps=self.rms_norm_eps,
            tie_word_embeddings=self.tie_word_embeddings,
            mtp_layers=mtp_layers,
            initializer_range=self.initializer_range,
        )
