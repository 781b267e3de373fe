"""PercoCodec: a photo and a caption to bytes, and bytes to a photo.

    compress:   image ─► pad ─► latents ─► refine ─► indices ─► pack(indices, caption) ─► bytes
    decompress: bytes ─► unpack ─► indices ─► condition ─┐
                                   caption ─► text ──────┴─► denoise ─► decode ─► crop

Paper: PerCo, Sec. 3.
Differs from the paper: one model serves several rates; the file is self-describing; indices are
refined in a closed loop; a small diffusion model, or a public Stable Diffusion for a private one.

Taught in notebook 00.
"""

from collections.abc import Sequence
from numbers import Real
from pathlib import Path

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from perco_lite.autoencoder import Autoencoder, StableDiffusionAutoencoder
from perco_lite.captions import use_older_names, warn_of_unheard
from perco_lite.coding.bitstream import BitstreamError, PercoFile, pack, unpack, wrong_model
from perco_lite.coding.index_prior import find_prior
from perco_lite.condition import LocalConditioner
from perco_lite.data import image_to_tensor, pad_to_multiple, tensor_to_image
from perco_lite.files import MAX_PAINTED, check_weights
from perco_lite.pixels import upright_size
from perco_lite.rates import RATES, RatePoint
from perco_lite.refinement import bit_price, refine
from perco_lite.sampling import DEFAULT_ANCHOR as DEFAULT_ANCHOR
from perco_lite.sampling import choose_steps, paint_latents
from perco_lite.tiling import Tiling, check_price, decode_latents, encode_image, group_by_size

BUNDLED = Path(__file__).parent / "weights"
DEFAULT_GUIDANCE = 1.0  # off: it costs twice the time and hardly changes what these weights paint
DEFAULT_TEMPERATURE = 0.9  # 1 = the paper; at 1 these weights paint a little too roughly


class PercoCodec(DiffusionPipeline):
    """The codec: a ``diffusers.DiffusionPipeline``, so saving, offloading and hubs work as usual.

    Components: autoencoder, conditioner (hyper-encoders, codebooks), unet, text_encoder,
    tokenizer, scheduler (DDIM; any diffusers scheduler with v-prediction can take its place).
    """

    model_cpu_offload_seq = "text_encoder->conditioner->unet->autoencoder"
    tiling: Tiling | None = Tiling()  # photos of over 1.5 megapixels go through in tiles

    def __init__(
        self,
        # named here, for diffusers loads no class that is not imported
        autoencoder: Autoencoder | StableDiffusionAutoencoder,
        conditioner: LocalConditioner,
        unet: UNet2DConditionModel,
        text_encoder,
        tokenizer,
        scheduler,
        guidance_scale: float = DEFAULT_GUIDANCE,
        temperature: float = DEFAULT_TEMPERATURE,
        few_steps: dict[str, list[int]] | None = None,
    ):
        """``guidance_scale``, ``temperature``: what these weights are decoded with; ``few_steps``:
        the timesteps by rate that they were trained to paint in; None: in the paper's many."""
        super().__init__()
        self.register_modules(
            autoencoder=autoencoder,
            conditioner=conditioner,
            unet=unet,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
        )
        self.register_to_config(
            guidance_scale=guidance_scale, temperature=temperature, few_steps=few_steps
        )

    @classmethod
    def from_stable_diffusion(cls, model_id=None, rates=("0.0019",), **options) -> "PercoCodec":
        """Build the paper's codec around a pretrained Stable Diffusion; it has yet to be trained.

        Arguments and errors: see ``stable_diffusion.build_sd_codec``.
        """
        from perco_lite.full_scale.stable_diffusion import build_sd_codec

        return build_sd_codec(model_id, rates, **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path=None, **kwargs) -> "PercoCodec":
        """Load weights: the bundled ones by default, else a folder or hub id; float32 by default.

        Raises FileNotFoundError where there are none, ValueError where they name code of others.
        """
        path = BUNDLED if pretrained_model_name_or_path is None else pretrained_model_name_or_path
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None)) or torch.float32
        at_hand = path == BUNDLED or Path(path).is_dir()
        path = path if at_hand else cls.download(path, **kwargs)
        check_weights(Path(path), bundled=path == BUNDLED)
        codec = super().from_pretrained(path, **kwargs)
        for module in filter(lambda c: isinstance(c, torch.nn.Module), codec.components.values()):
            torch.nn.Module.to(module, dtype=dtype)  # module.to would warn of float16
        return codec

    def save_pretrained(self, save_directory, *args, **kwargs) -> None:
        """Save as diffusers does, under names that older releases of transformers read too."""
        super().save_pretrained(save_directory, *args, **kwargs)
        use_older_names(Path(save_directory))

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of the rates these weights serve, lowest first."""
        return tuple(self.conditioner.config.rates)

    def rate(self, name: str | float) -> RatePoint:
        """Rate called ``name``, or the number; ValueError names those that these weights serve."""
        known = next((rate for rate in RATES if rate.is_called(name)), None)
        if not known or known.name not in self.rates:
            raise ValueError(
                f"got rate {name!r:.60}, {'one of the paper, not' if known else 'not one'} of "
                f"these weights; expected one of {', '.join(self.rates)}"
            )
        return known

    @property
    def model_id(self) -> int:
        """16-bit id of the codebooks; stored in each file, checked before decoding."""
        return self.conditioner.fingerprint()

    def enable_tiling(
        self, tile_pixels: int = 1024, overlap: int = 256, above: int | None = None
    ) -> None:
        """Work through photos of more than ``above`` pixels (default: one tile) in tiles.

        Smaller tiles take less memory and more time. Errors as ``Tiling``.
        """
        self.tiling = Tiling(tile_pixels, overlap, tile_pixels**2 if above is None else above)

    def disable_tiling(self) -> None:
        """Work through photos of every size whole; a large one takes many gigabytes."""
        self.tiling = None

    def encode(
        self, image: Image.Image, rate: str, rounds: int | None = None, price: float | None = None
    ) -> Tensor:
        """Indices (1,h,w) int64 of one PIL image, its edges repeated up to the rate's stride.

        ``rounds`` of closed-loop refinement (see ``refinement``); 0 = the paper's nearest codes.
        ``price`` of a bit in cosine similarity, where the weights have an index prior; 0 = none.
        """
        served = self.rate(rate)
        padded = pad_to_multiple(image_to_tensor(image), served.stride)
        prior = find_prior(self.model_id, served.name, padded[0, 0].numel() // served.stride**2)
        bits = bit_price(prior, served, 0 if rounds == 0 else price)
        padded = padded.to(self._execution_device, self.autoencoder.dtype)
        with torch.no_grad():
            latents = encode_image(self.autoencoder, padded, self.tiling)
            return refine(self.conditioner, latents, served.name, rounds, bits)

    def compress(
        self,
        image: Image.Image | list[Image.Image],
        caption: str | list[str] = "",
        rate: str = "0.0019",
        rounds: int | None = None,
        price: float | None = None,
    ) -> bytes | list[bytes]:
        """Compress one PIL image or a list, of any size and mode, to the bytes of `.perco` files.

        ``rounds``, ``price``: see ``encode``; more rounds take longer, a higher price saves bytes.
        Raises ValueError for an unknown rate, a caption over 65,535 bytes, or unlike lists.
        """
        how = rate, rounds, price
        if isinstance(image, (list, tuple)):
            captions = [caption] * len(image) if isinstance(caption, str) else list(caption)
            if len(captions) != len(image):
                counts = f"{len(captions)} captions for {len(image)} images"
                raise ValueError(f"got {counts}; pass one for each")
            return [self.compress(i, c, *how) for i, c in zip(image, captions, strict=True)]  # type: ignore[misc]
        indices, size = self.encode(image, *how)[0].cpu().numpy(), upright_size(image)
        data = pack(PercoFile(self.rate(rate), *size, caption, indices, self.model_id))  # type: ignore[arg-type]
        warn_of_unheard(self.tokenizer, caption)  # type: ignore[arg-type]
        return data

    def decompress(
        self,
        data: bytes | PercoFile | list[bytes | PercoFile],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seed: int | list[int] = 0,
        anchor: float | None = None,
        temperature: float | None = None,
        max_pixels: int | None = MAX_PAINTED,
        sampler: str | None = None,
    ) -> Image.Image | list[Image.Image]:
        """Paint the photo (or photos) back from the bytes of `.perco` files.

        Args:
            data: one file's bytes, or what ``unpack`` made of them, or a list; files of equal
                padded size share U-Net calls.
            num_inference_steps: None = what the weights were made for; of the paper's loop 20 are
                usual, 5 nearly as good above 0.05 bpp.
            guidance_scale: weight of the caption; 1 = off and twice as fast. None for this,
                ``temperature`` and ``anchor``: what suits these weights and steps.
            temperature: scale of the first noise; below 1: smoother, better PSNR, less texture.
            anchor: in [0,1], how firmly coarse colours are held to what the bits imply; weights
                without a condition decoder (as in the paper) imply nothing, so it has no effect.
            seed: one for all, or one per file; same seed, same picture. Or CPU ``generator``(s).
            max_pixels: of a file; None = paint any. Few bytes may ask for a hundred megapixels.
            sampler: "fast" = few steps, "paper" = the paper's loop, None = fast where the weights
                were trained for it, and for that many steps (``sampling.choose_steps``).
        Raises:
            ValueError: a file of more, with what it would cost; nothing was painted. "fast" with
                weights that were not trained for it.
            BitstreamError: not a `.perco` file of these weights, or damaged.
        """
        single = not isinstance(data, (list, tuple))
        limits = self.model_id, max_pixels, num_inference_steps, sampler  # the id takes a while
        files = [self._parsed(d, *limits) for d in ([data] if single else data)]  # type: ignore[arg-type,union-attr]
        seeds = seed if generator is None else generator
        seeds = list(seeds) if isinstance(seeds, (list, tuple)) else [seeds] * len(files)
        if len(seeds) != len(files):
            raise ValueError(f"got {len(seeds)} seeds for {len(files)} files; pass one for each")
        images: list[Image.Image | None] = [None] * len(files)
        for group in group_by_size(files):
            condition = torch.cat([self.condition(files[i]) for i in group])
            texts, rates = [files[i].caption for i in group], [files[i].rate.name for i in group]
            options = num_inference_steps, guidance_scale, [seeds[i] for i in group]
            painted = self.paint(condition, texts, rates, *options, anchor, temperature, sampler)
            for i, image in zip(group, painted, strict=True):
                images[i] = image.crop((0, 0, files[i].width, files[i].height))
        return images[0] if single else images  # type: ignore[return-value]

    __call__ = decompress

    def _parsed(self, data: bytes | PercoFile, model_id: int, limit: int | None, *how):
        """A file of these weights and of a rate they serve, unpacked where it is not yet."""
        file = data if isinstance(data, PercoFile) else unpack(data, model_id)
        if file.model_id != model_id:
            raise BitstreamError(wrong_model(file.model_id, model_id))
        rate = self.rate(file.rate.name).name
        check_price(file, limit, choose_steps(self.config.few_steps, rate, *how))
        return file

    @torch.no_grad()
    def condition(self, file: PercoFile) -> Tensor:
        """Local condition (1,C,h',w') that a file's indices decode to."""
        indices = torch.from_numpy(file.indices)[None].to(self._execution_device)
        return self.conditioner.decode(indices, file.rate.name)

    @torch.no_grad()
    def estimate(self, file: PercoFile) -> Image.Image | None:
        """The picture that the bits imply without any diffusion: the condition's first estimate.

        None for weights whose condition estimates nothing (the paper's, Stable Diffusion's).
        """
        latents = self.conditioner.estimate(self.condition(file))
        size = 0, 0, file.width, file.height
        return None if latents is None else self._decode(latents)[0].crop(size)

    @torch.no_grad()
    def paint(
        self,
        condition: Tensor,
        captions: Sequence[str],
        rate: str | Sequence[str],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | list[int | torch.Generator] = 0,
        anchor: float | None = None,
        temperature: float | None = None,
        sampler: str | None = None,
    ) -> list[Image.Image]:
        """Paint local conditions (B,C,h',w') and captions, whatever they come from, as RGB images.

        ``rate``, ``seed``: one for all or one each; all else as ``decompress``, which is this after
        unpacking, in groups that fit into memory (``group_by_size``). Images are 8h' × 8w' pixels.
        """
        count = len(condition)
        rates = [rate] * count if isinstance(rate, str | Real) else rate
        rates = [self.rate(name).name for name in rates]
        seeds = seed if isinstance(seed, list) else [seed] * count
        plan = [choose_steps(self.config.few_steps, r, num_inference_steps, sampler) for r in rates]
        images: list[Image.Image | None] = [None] * count
        for chosen in dict.fromkeys(plan):  # as a rule one: rates may need unlike steps
            part = [i for i in range(count) if plan[i] == chosen]
            given = [[one[i] for i in part] for one in (captions, rates, seeds)]
            options = chosen, guidance_scale, anchor, temperature
            latents = paint_latents(self, condition[part], *given, *options)  # type: ignore[call-arg,arg-type]
            for i, image in zip(part, self._decode(latents), strict=True):
                images[i] = image
        self.maybe_free_model_hooks()
        return images  # type: ignore[return-value]

    def _decode(self, latents: Tensor) -> list[Image.Image]:
        """One image after the other: a decoder takes more memory than all that comes before."""
        parts = latents.to(self.autoencoder.dtype).split(1)
        return [tensor_to_image(decode_latents(self.autoencoder, p, self.tiling)) for p in parts]  # type: ignore[misc]
