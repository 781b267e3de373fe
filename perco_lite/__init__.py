"""perco_lite: a course and a codec that rebuild PerCo (Careil et al., ICLR 2024).

from perco_lite import PercoCodec, BitstreamError, ledger, RATES
"""

import importlib
import sys

__version__ = "0.2.0"

# Imported when first asked for: `perco --help` and the bitstream need no torch.
_HOMES = {
    "PercoCodec": "codec",
    "BitstreamError": "coding.bitstream",
    "ledger": "coding.bitstream",
    "RATES": "rates",
}
__all__ = ["BitstreamError", "PercoCodec", "RATES", "ledger"]


def __getattr__(name: str):
    if name in _HOMES:
        return getattr(importlib.import_module(f"perco_lite.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'perco_lite' has no attribute {name!r}")


# Where the flat modules of 0.1.0 are now, folder by folder: "old" or "old=new". For this release.
_MOVED = {
    "coding": "bitstream caption_model entropy_coding file_header index_prior ngram_model "
    "range_coder",
    "training": "autoencoder_stage=autoencoder caption_training=caption_model codec_stage=codec "
    "latent_store=latents muon photo_store=photos prior_recipe=index_prior recipes=codec shards "
    "prior_training=index_prior text_stage=text_encoder training=loop training_log=loop",
    "full_scale": "base_recipe=training captioning memory perco_sd photo_stream pretrained "
    "run_config stable_diffusion tiny_checkpoint trained_layers",
    "evaluation": "bench datasets evaluation=evaluate evaluation_files=table evaluation_rows=rows "
    "evaluation_summary=summary published=results result_table=table results scoring",
    "evaluation.codecs": "baselines=classical classical contenders=ours external_codecs=external "
    "learned_codecs=learned",
    "evaluation.metrics": "bd_rate frechet realism semantics",
    "cli": "batch=files claims_cli=claims cli=main demo download_cli=download downloads=download "
    "evaluate_cli=evaluate inspecting pretrained_cli=pretrained train_cli=train",
}


class _Moved:
    """Last of the finders, so it is asked only for what is nowhere; names the new place."""

    @staticmethod
    def find_spec(name: str, path=None, target=None) -> None:
        package, *rest = name.split(".")
        if package != __name__:
            return
        for folder, modules in _MOVED.items():
            for old, _, new in (module.partition("=") for module in modules.split()):
                if old == rest[0]:
                    raise ModuleNotFoundError(
                        f"perco_lite.{old} moved to perco_lite.{folder}.{new or old}; change the "
                        "import"
                    )


sys.meta_path.append(_Moved)
