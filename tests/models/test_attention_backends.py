"""Fused attention against the portable one. No kernel runs natively here: splash runs interpreted,
cuDNN's part is played by plain JAX, and both are lowered for the devices that they are for."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as cudnn_in_jax
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel
from jax.sharding import Mesh, PartitionSpec

from flashface_jax.models.attention import cudnn
from flashface_jax.models.attention.attend import ATTENDED, MASKED_LOGIT, Attended
from flashface_jax.models.attention.backends import (
    ALL_HEADS,
    HEAD_BY_HEAD,
    SMALL,
    attention_named,
    best_attention,
)
from flashface_jax.models.attention.cudnn import CudnnAttention
from flashface_jax.models.attention.splash import MOST_BYTES, SplashAttention, block_size

SPLASH = SplashAttention(ALL_HEADS, small=0, interpret=True)
CUDNN = CudnnAttention(ALL_HEADS, small=0, capability=(9, 0))
BATCH, HEADS = 2, 2


def draw(queries, keys, d, dtype=jnp.float32):
    rng = np.random.default_rng(d)
    shapes = [(BATCH, length, HEADS, d) for length in (queries, keys, keys)]
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def draw_weight(keys):
    """Weights of all kinds for the first row of the batch; no key at all for the second."""
    kinds = np.random.default_rng(0).choice([0, 1, 2, 0.5], (BATCH, keys))
    return jnp.asarray(kinds, jnp.float32).at[1].set(0)


def close(ours, expected, tolerance, what):
    """Compares with a tolerance relative to the largest expected number."""
    ours, expected = (np.asarray(x, np.float32) for x in (ours, expected))
    difference = float(np.abs(ours - expected).max() / np.abs(expected).max())
    assert difference <= tolerance, f"{what}: differs by {difference:.2e}, allowed {tolerance:.0e}"


def with_gradients(attend, inputs, key_weight):
    """Attended, and the gradients of a function of all of it that has a key."""

    @jax.jit
    def run(query, key, value):
        def loss(query, key, value):
            attended = attend(query, key, value, key_weight)
            values, log_normalizer = attended
            if key_weight is not None:
                values, log_normalizer = values[:1], log_normalizer[:1]
            total = jnp.sum(jnp.sin(values.astype(jnp.float32)))
            return total + jnp.sum(jnp.sin(log_normalizer)), attended

        return jax.grad(loss, (0, 1, 2), has_aux=True)(query, key, value)

    return run(*inputs)


def compare(attend, inputs, key_weight, tolerance):
    gradients, attended = with_gradients(attend, inputs, key_weight)
    in_float32 = [x.astype(jnp.float32) for x in inputs]
    expected_gradients, expected = with_gradients(ALL_HEADS, in_float32, key_weight)
    assert attended.values.dtype == inputs[0].dtype
    assert attended.log_normalizer.dtype == jnp.float32
    rows = slice(None)
    if key_weight is not None:
        rows = slice(1)
        assert jnp.isfinite(attended.values).all()
        assert (attended.log_normalizer[1:] == MASKED_LOGIT).all()
    close(attended.values[rows], expected.values[rows], tolerance, "values")
    close(attended.log_normalizer[rows], expected.log_normalizer[rows], tolerance, "log-sum-exp")
    for name, ours, theirs in zip("qkv", gradients, expected_gradients, strict=True):
        assert ours.dtype == inputs[0].dtype
        assert jnp.isfinite(ours).all()
        close(ours, theirs, tolerance, f"gradient of {name}")


@pytest.mark.parametrize(
    ("queries", "keys", "d", "weighted"),
    [
        (144, 196, 40, False),
        (144, 196, 40, True),
        (196, 128, 80, False),
        (196, 77, 160, True),
        (1100, 144, 40, False),  # two blocks of queries
        (144, 1100, 40, True),  # two blocks of keys
    ],
)
def test_splash_equals_the_portable_one(queries, keys, d, weighted):
    weight = draw_weight(keys) if weighted else None
    compare(SPLASH, draw(queries, keys, d), weight, 2e-6)


@pytest.mark.parametrize("weighted", [False, True])
def test_splash_in_bfloat16(weighted):
    weight = draw_weight(196) if weighted else None
    compare(SPLASH, draw(144, 196, 40, jnp.bfloat16), weight, 1e-2)


def play_cudnn(query, key, value, *, scale, return_residual):
    """What cuDNN does: float32 log-sum-exp (batch, heads, q), through which no gradient goes."""
    assert return_residual
    assert query.shape[3] == key.shape[3] == value.shape[3]
    logits = scale * jnp.einsum("bqhd,bkhd->bhqk", query, key, preferred_element_type=jnp.float32)
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    weights = jnp.exp(logits - log_normalizer[..., None])
    values = jnp.einsum("bhqk,bkhd->bqhd", weights.astype(value.dtype), value)
    return values, jax.lax.stop_gradient(log_normalizer)


@pytest.fixture
def cudnn_calls(monkeypatch):
    """Lets plain JAX play cuDNN, and lists the calls."""
    calls = []

    def play(query, key, value, **settings):
        calls.append(query.shape)
        return play_cudnn(query, key, value, **settings)

    monkeypatch.setattr(cudnn, "dot_product_attention", play)
    return calls


@pytest.mark.parametrize(("d", "weighted"), [(40, False), (40, True), (80, True), (160, True)])
def test_gradients_around_cudnn(monkeypatch, cudnn_calls, d, weighted):
    monkeypatch.setattr(CudnnAttention, "refusal", lambda *_: None)
    weight = draw_weight(51) if weighted else None
    compare(CUDNN, draw(36, 51, d), weight, 2e-6)
    assert cudnn_calls


def test_bfloat16_around_cudnn(cudnn_calls):
    compare(CUDNN, draw(36, 51, 40, jnp.bfloat16), draw_weight(51), 1e-2)
    assert set(cudnn_calls) == {(BATCH, 36, HEADS, 48)}


def test_cudnn_runs_once_more_only_for_the_gradient_of_the_log_sum_exp(cudnn_calls):
    inputs = draw(36, 51, 40, jnp.bfloat16)

    def used(index):
        return lambda *inputs: jnp.sum(CUDNN(*inputs)[index].astype(jnp.float32))

    jax.make_jaxpr(jax.grad(used(0)))(*inputs)
    assert len(cudnn_calls) == 1
    jax.make_jaxpr(jax.grad(used(1)))(*inputs)
    assert len(cudnn_calls) == 3


@pytest.mark.parametrize("attend", [SPLASH, CUDNN])
@pytest.mark.parametrize("times", [2, 3, 0.5])
def test_a_weight_on_all_keys_adds_its_logarithm_even_in_bfloat16(attend, times, cudnn_calls):
    inputs = draw(36, 51, 40, jnp.bfloat16)
    once = attend(*inputs, jnp.ones((BATCH, 51)))
    often = attend(*inputs, jnp.full((BATCH, 51), float(times)))
    added = often.log_normalizer - once.log_normalizer
    difference = float(jnp.abs(added - np.log(times)).max())
    # bfloat16 alone would be off by 1e-3.
    assert difference <= 2e-6, f"log {times} is off by {difference:.2e}, allowed 2e-06"


def test_blocks_hold_all_tokens_with_little_padding_and_fit():
    for d, item_size in ((40, 2), (80, 2), (160, 2), (512, 2), (160, 4), (512, 4)):
        for length in range(1, 20000, 37):
            size = block_size(length, d, item_size)
            padded = -(-length // size) * size
            assert size % 128 == 0
            assert size <= 1024
            assert size * -(-(d + 8) // 128) * 128 * item_size <= MOST_BYTES
            assert padded - length < max(256, 0.25 * length), (length, size)
    assert [block_size(n, 40, 2) for n in (9216, 2304, 576, 77)] == [1024, 768, 640, 128]


def seen_by(attend_class, *settings):
    """An attention whose other backend answers with the number of its calls."""
    calls = []

    def other(query, key, value, key_weight=None):
        calls.append(key_weight)
        return Attended(query, query[..., 0].astype(jnp.float32))

    return attend_class(other, *settings), calls


def test_what_a_kernel_cannot_serve_goes_to_the_other_backend(cudnn_calls):
    bfloat16, float32 = draw(36, 51, 40, jnp.bfloat16), draw(36, 51, 40)
    weight = draw_weight(51)
    splash, splash_calls = seen_by(SplashAttention, 36 * 51)
    splash(*float32, weight)
    assert splash_calls == [weight]
    for small, capability, inputs in [
        (36 * 51, (9, 0), bfloat16),
        (0, (9, 0), float32),
        (0, (7, 5), bfloat16),
        (0, None, bfloat16),
        (0, (9, 0), draw(36, 51, 44, jnp.bfloat16)),
        (0, (8, 0), draw(36, 51, 160, jnp.bfloat16)),
    ]:
        attend, calls = seen_by(CudnnAttention, small, capability)
        attend(*inputs)
        assert calls == [None]
    assert not cudnn_calls


def test_refusals_name_the_limit():
    wide = jnp.zeros((1, 1, 1, 640))
    assert "up to 512 channels, not 640" in SPLASH.refusal(wide)
    assert "not float16" in SPLASH.refusal(wide.astype(jnp.float16))
    assert SPLASH.refusal(wide[..., :512]) is None
    ampere = CudnnAttention(ALL_HEADS, 0, capability=(8, 6))
    assert "up to 128 on this GPU, not 136" in ampere.refusal(
        jnp.zeros((1, 1, 1, 128), jnp.bfloat16), jnp.ones((1, 1))
    )
    assert "not float32" in ampere.refusal(wide)
    assert "8.0 or more" in CudnnAttention(ALL_HEADS, 0, None).refusal(wide)


def test_jax_still_has_the_private_functions_that_we_call():
    """Where this fails, adapt splash.py or cudnn.py in models/attention to the new JAX."""
    common = {"q", "k", "v", "segment_ids", "sinks", "logsumexp", "do", "di"}
    common |= {"bq", "bkv", "is_mqa", "mask_info", "mask_value", "attn_logits_soft_cap", "q_layout"}
    common |= {"k_layout", "v_layout", "mask_function", "interpret"}
    of_keys = inspect.signature(splash_attention_kernel._splash_attention_bwd_dkv).parameters
    of_queries = inspect.signature(splash_attention_kernel._splash_attention_bwd_dq).parameters
    assert set(of_queries) == common
    assert set(of_keys) == common | {"bkv_compute", "use_fused_bwd_kernel"}
    positional = ["q", "k", "v", "segment_ids", "sinks", "logsumexp", "do", "di"]
    assert list(of_keys)[:8] == list(of_queries)[:8] == positional
    of_cudnn = inspect.signature(cudnn_in_jax.dot_product_attention).parameters
    assert {"query", "key", "value", "scale", "return_residual"} <= set(of_cudnn)


def lowered(attend, device, inputs, key_weight, gradient):
    """The program for another device than this, within shard_map as images are generated."""

    def run(query, key, value):
        def loss(*inputs):
            values, log_normalizer = attend(*inputs, key_weight)
            return jnp.sum(values.astype(jnp.float32)) + jnp.sum(jnp.sin(log_normalizer))

        if gradient:
            return jax.grad(loss, (0, 1, 2))(query, key, value)
        return attend(query, key, value, key_weight)

    everywhere = PartitionSpec()
    sharded = jax.shard_map(
        run,
        mesh=Mesh(jax.devices(), "images"),
        in_specs=everywhere,
        out_specs=everywhere,
        check_vma=False,
    )
    return jax.jit(sharded).trace(*inputs).lower(lowering_platforms=(device,)).as_text()


@pytest.mark.parametrize(("gradient", "kernels"), [(False, 1), (True, 3)])
def test_splash_lowers_for_a_tpu(gradient, kernels):
    inputs, weight = draw(2304, 784, 80, jnp.bfloat16), jnp.ones((BATCH, 784))
    native = SplashAttention(ALL_HEADS, SMALL)
    text = lowered(native, "tpu", inputs, weight, gradient)
    assert text.count("stablehlo.custom_call @tpu_custom_call") == kernels
    assert not re.search(r"tensor<[^>]*x2304x(784|896)x", text), "logits in memory"


@pytest.mark.parametrize("gradient", [False, True])
def test_cudnn_lowers_for_a_gpu(monkeypatch, gradient):
    # JAX asks the machine at hand for these two.
    monkeypatch.setattr(cudnn_in_jax, "check_cudnn_version", lambda: 92000)
    monkeypatch.setattr(cudnn_in_jax, "check_compute_capability", lambda _: True)
    inputs, weight = draw(576, 1568, 160, jnp.bfloat16), jnp.ones((BATCH, 1568))
    native = CudnnAttention(ALL_HEADS, SMALL, (9, 0))
    text = lowered(native, "cuda", inputs, weight, gradient)
    calls = re.findall(r"custom_call @__cudnn\$(\w+)\(.*-> \((.*)\)", text)
    names = ["fmhaSoftmax"]
    if gradient:
        names += ["fmhaSoftmaxBackward", "fmhaSoftmax", "fmhaSoftmaxBackward"]
    assert sorted(name for name, _ in calls) == sorted(names)
    values, log_normalizer, _ = dict(calls)["fmhaSoftmax"].split(", ")
    assert values == f"tensor<{BATCH}x{HEADS}x576x168xbf16>"
    assert log_normalizer == f"tensor<{BATCH}x{HEADS}x576xf32>"
    assert not re.search(r"tensor<[^>]*x576x1568x", text), "logits in memory"


@pytest.mark.parametrize(("kept", "forward"), [(True, 1), (False, 2)])
@pytest.mark.parametrize("device", ["tpu", "cuda"])
def test_what_attention_returned_can_be_kept_where_all_else_is_made_again(
    monkeypatch, device, kept, forward
):
    monkeypatch.setattr(cudnn_in_jax, "check_cudnn_version", lambda: 92000)
    monkeypatch.setattr(cudnn_in_jax, "check_compute_capability", lambda _: True)
    native, called = {
        "tpu": (SplashAttention(ALL_HEADS, SMALL), "@tpu_custom_call"),
        "cuda": (CudnnAttention(ALL_HEADS, SMALL, (9, 0)), "@__cudnn$fmhaSoftmax("),
    }[device]
    policy = jax.checkpoint_policies.save_only_these_names(ATTENDED) if kept else None

    def block(query, key, value):
        values = native(jnp.tanh(query), jnp.tanh(key), jnp.tanh(value)).values
        return jnp.sum(jnp.tanh(values).astype(jnp.float32))

    again = jax.checkpoint(block, policy=policy)
    inputs = draw(1024, 1024, 40, jnp.bfloat16)
    traced = jax.jit(jax.value_and_grad(again, (0, 1, 2))).trace(*inputs)
    text = traced.lower(lowering_platforms=(device,)).as_text()
    backward = 2 if device == "tpu" else 0  # splash's have the same name
    assert text.count(called) == forward + backward


@pytest.mark.parametrize(
    ("device", "kind"), [("cpu", None), ("tpu", SplashAttention), ("gpu", CudnnAttention)]
)
def test_the_best_attention_suits_the_device(monkeypatch, device, kind):
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    best = best_attention()
    assert attention_named("auto") == best
    assert attention_named("blocked") == (HEAD_BY_HEAD if device == "cpu" else ALL_HEADS)
    if kind is None:
        assert best == HEAD_BY_HEAD
    else:
        assert isinstance(best, kind)
        assert attention_named({"tpu": "splash", "gpu": "cudnn"}[device]) == best
        assert (best.other, best.small) == (ALL_HEADS, SMALL)


def test_the_compute_capability_is_read_from_nvidia_gpus_only(monkeypatch):
    class Device:
        def __init__(self, capability):
            if capability:
                self.compute_capability = capability

    for name, expected in [("9.0", (9, 0)), ("10.3", (10, 3)), ("gfx942", None), (None, None)]:
        monkeypatch.setattr(jax, "local_devices", lambda name=name: [Device(name)])
        assert cudnn.compute_capability() == expected


def test_wrong_names_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match="No attention is named 'flash': choose among auto, block"):
        attention_named("flash")
    for name, device in (("splash", "TPU"), ("cudnn", "GPU")):
        with pytest.raises(ValueError, match=f"'{name}' needs a {device} but JAX runs on a CPU"):
            attention_named(name)
