"""What a compiled step reads: records of int64, one field a name. Addresses and sizes in bytes; floats as their bits.

A matrix is five fields in a row: the packed blocks, the row scales, the bits (4 or 8), the row blocks nb, the tiles kb.
"""

from collections import namedtuple

from seamount.kernels.cpu.compiling import inlined
from seamount.kernels.cpu.vector import bits_to_float, read_int64, write_int64

MATRIX_FIELDS = 5

# One step: the batch, the workspace and the shapes that all layers share.
STEP = (
    "tokens",  # T
    "threads",
    "tile",  # 64 bytes of tile configuration
    "team",
    "hidden",  # D
    "embedding",  # (W, D) bfloat16
    "token",  # (T) int64: ids
    "x",  # (T, x_stride) float32, the residual stream
    "x_stride",
    "position",  # (T) int64
    "sequence",  # (T) int64: which sequence a token belongs to
    "pages",  # (sequences, table_width) int64: the numbers of each sequence's pages
    "table_width",
    "blocks",  # (block_count, 3) int64: first token, tokens, sequence; the tokens that attend together
    "block_count",
    "is_alone",  # whether every token is its sequence's only one, and they are many or their sequences short
    "layers",  # address of the layer records
    "layer_count",
    "bases",  # (layer_count) int64: address of each layer's rows in page 0
    "act",  # int8 activations of all tokens, and their notes (T, note_step)
    "act_notes",
    "note_step",
    "act_rows",  # 1 or 16
    "y",  # (T, y_stride) float32: a product's outputs
    "y_stride",
    "z",  # (T, z_stride) float32: a second one
    "z_stride",
    "q",  # (T, H, q_dim) bfloat16
    "q_dim",
    "head_act",  # int8 activations of every head by all tokens, and their notes (H, T padded, head_note_step)
    "head_notes",
    "head_note_step",
    "states",  # attention states of units that were split by segment
    "scratch",  # per thread
    "scratch_bytes",
    "score",  # (T, E) float32
    "choice",  # (T, K) int64, then weights (T, K) float32
    "choice_weight",
    "groups",  # (E + 1) group records
    "group_count",
    "unit_count",
    "slots",  # (slots) int64: the token of each slot
    "slot_weight",  # (slots) float32
    "slot_act",  # gathered int8 activations
    "slot_notes",
    "h",  # (slots, F) float32
    "h_act",
    "h_notes",
    "norm",  # final norm's weight and the head's matrix; wanted rows
    "eps",
    "wanted",  # (wanted_count) int64
    "wanted_count",
    "wanted_rows",  # 1 or 16
    "logits",  # (wanted_count, logits_stride) float32
    "logits_stride",
    "feed_forward",  # addresses of compiled kernels
    "head_kernel",
    "head",
) + ("",) * (MATRIX_FIELDS - 1)

LAYER = (
    "attention",  # address of the compiled kernel: latent or dense
    "is_latent",
    "heads",  # H
    "groups",  # key-value heads G; 1 for latent rows
    "beside",  # key-value heads whose query heads fill a column group; 0 where only one at a time can be attended to
    "key_dim",  # C + R, or the head's dimension
    "value_dim",  # C, or the head's dimension
    "nope",  # N
    "rope",  # R
    "value_head",  # V
    "rope_cos",  # (positions, R / 2) float32
    "rope_sin",
    "is_interleaved",
    "scale",  # the softmax scale's bits
    "row_bytes",  # of a cached row
    "page_bytes",
    "compressed",  # of the cached rows' RowFormat; 0 for none
    "row_group",
    "norm",
    "eps",
    "q_norm",  # of q_a, or of a head's queries; 0 for none
    "k_norm",  # of the latent, or of a head's keys; 0 for none
    "latent_eps",
    "q_rank",  # of q_a
    "q_bias",  # float32 biases, 0 for none
    "kv_bias",
    "o_bias",
    "q",  # matrix: q_proj, or qkv_proj; with q_a: q_b_proj
    *("",) * (MATRIX_FIELDS - 1),
    "q_a",  # matrix, blocks 0 for none
    *("",) * (MATRIX_FIELDS - 1),
    "kv_a",
    *("",) * (MATRIX_FIELDS - 1),
    "w_uk",  # H matrices in a row
    *("",) * (MATRIX_FIELDS - 1),
    "w_uv",
    *("",) * (MATRIX_FIELDS - 1),
    "o",
    *("",) * (MATRIX_FIELDS - 1),
    "ff_norm",
    "experts",  # E, 0 for a dense layer
    "top_k",
    "router",  # (E, D) bfloat16
    "router_bias",  # (E) float32, 0 for none
    "scoring",  # 0 softmax, 1 sigmoid
    "method",  # 0 greedy, 1 best of each group, 2 best two of each group (noaux_tc)
    "expert_groups",
    "kept_groups",
    "is_normalised",
    "routed_scale",  # bits of a float32; 1 where the spec leaves it out
    "width",  # F of a routed expert
    "gate_up",  # E stacks of two matrices
    *("",) * (MATRIX_FIELDS - 1),
    "down",  # E matrices
    *("",) * (MATRIX_FIELDS - 1),
    "shared_width",  # F of the shared experts or of the dense layer, 0 for none
    "shared_gate_up",
    *("",) * (MATRIX_FIELDS - 1),
    "shared_down",
    *("",) * (MATRIX_FIELDS - 1),
)

# One expert's tokens; the shared experts are a group of all tokens.
GROUP = (
    "expert",  # -1 for the shared ones
    "count",
    "slot",  # its first slot: where `slots` and `slot_weight` tell tokens and weights
    "unit",  # its first unit of work in the gate and up phase
    "act",  # its tokens' activations, their rows in a tile, and notes
    "act_rows",
    "notes",
    "h",  # float32, by token tiles of h_rows, 16 outputs after 16
    "h_rows",
    "width",
    "h_act",  # the same as int8
    "h_notes",
    "gate_up",  # address of the layer record's matrix, whose blocks begin at these addresses
    "gate",
    "up",
    "gate_scale",
    "up_scale",
    "down",
    "down_blocks",
    "down_scale",
)


def _offsets(kind, fields):
    """Every field's byte offset, as a tuple with names that compiled code may use."""
    named = {name: index * 8 for index, name in enumerate(fields) if name}
    return namedtuple(kind, named)(**named)


S, L, G = _offsets("S", STEP), _offsets("L", LAYER), _offsets("G", GROUP)
STEP_BYTES, LAYER_BYTES, GROUP_BYTES = len(STEP) * 8, len(LAYER) * 8, len(GROUP) * 8


@inlined
def get(record, field):
    """One field."""
    return read_int64(record + field)


@inlined
def put(record, field, value):
    """Set one field."""
    write_int64(record + field, value)


@inlined
def get_float(record, field):
    """A field that holds a float32's bits."""
    return bits_to_float(read_int64(record + field))
