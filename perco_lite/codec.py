"""PercoCodec: a photo and a caption to bytes, and bytes to a photo.

    compress:   image ─► pad ─► latents ─► refine ─► indices ─► pack(indices, caption) ─► bytes
    decompress: bytes ─► unpack ─► indices ─► condition ─┐
                                   caption ─► text ──────┴─► denoise ─► decode ─► crop

Paper: PerCo, Sec. 3.
Differs from the paper: one model serves several rates; the file is self-describing; indices are
refined in a closed loop; the diffusion model is this project's small one, or a public Stable
Diffusion in place of a private model.
"""

from pathlib import Path

import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from PIL import Image
from torch import Tensor

from perco_lite.autoencoder import Autoencoder, StableDiffusionAutoencoder
from perco_lite.captions import embed_captions, use_older_names
from perco_lite.coding.bitstream import PercoFile, pack, unpack
from perco_lite.condition import LocalConditioner
from perco_lite.data import image_to_tensor, pad_to_multiple, tensor_to_image
from perco_lite.rates import RATES, RatePoint, get_rate
from perco_lite.refinement import default_rounds, refine
from perco_lite.sampling import denoise, draw_noise
from perco_lite.tiling import WHOLE_PIXELS, Tiled, decode_latents, encode_image

BUNDLED = Path(__file__).parent / "weights"
DEFAULT_GUIDANCE = 1.0  # off: it costs twice the time and hardly changes what these weights paint
DEFAULT_TEMPERATURE = 0.9  # 1 = the paper; at 1 these weights paint a little too roughly
DEFAULT_ANCHOR = 1.0  # 0 = off, as in the paper
BATCH_PIXELS = WHOLE_PIXELS  # photos decoded together, so that memory stays bounded


class PercoCodec(Tiled, DiffusionPipeline):
    """The codec: a ``diffusers.DiffusionPipeline``, so saving, offloading and hubs work as usual.

    Components: autoencoder, conditioner (hyper-encoders, codebooks), unet, text_encoder,
    tokenizer, scheduler (DDIM; any diffusers scheduler with v-prediction can take its place).
    """

    model_cpu_offload_seq = "text_encoder->conditioner->unet->autoencoder"

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
    ):
        """``guidance_scale`` and ``temperature`` are what these weights are decoded with."""
        super().__init__()
        self.register_modules(
            autoencoder=autoencoder,
            conditioner=conditioner,
            unet=unet,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            scheduler=scheduler,
        )
        self.register_to_config(guidance_scale=guidance_scale, temperature=temperature)

    @classmethod
    def from_stable_diffusion(cls, model_id=None, rates=("0.0019",), **options) -> "PercoCodec":
        """Build the paper's codec around a pretrained Stable Diffusion; it has yet to be trained.

        ``model_id`` is a folder, a hub id, or several to try (default: mirrors of 2.1); ``options``
        and errors: see ``stable_diffusion.build_codec``.
        """
        from perco_lite.full_scale.stable_diffusion import build_codec

        return build_codec(cls, model_id, rates, **options)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path=None, **kwargs) -> "PercoCodec":
        """Load weights: the bundled ones by default, else a folder or hub id; float32 by default.

        Raises FileNotFoundError where the package came without weights.
        """
        path = pretrained_model_name_or_path
        if path is None:
            path = BUNDLED
            if not (BUNDLED / "model_index.json").exists():
                raise FileNotFoundError(
                    f"no bundled weights in {BUNDLED}; reinstall the package, or train your own "
                    "(perco train codec) and pass their folder"
                )
        old_name = kwargs.pop("torch_dtype", None)  # diffusers renamed it
        dtype = kwargs.pop("dtype", old_name) or torch.float32
        codec = super().from_pretrained(path, **kwargs)
        for component in codec.components.values():
            if isinstance(component, torch.nn.Module):
                # not component.to, whose warning about this is of no concern here
                torch.nn.Module.to(component, dtype=dtype)
        return codec

    def save_pretrained(self, save_directory, *args, **kwargs) -> None:
        """Save as diffusers does, under names that older releases of transformers read too."""
        super().save_pretrained(save_directory, *args, **kwargs)
        use_older_names(Path(save_directory))

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of the rates these weights serve, lowest first."""
        return tuple(self.conditioner.config.rates)

    def rate(self, name: str) -> RatePoint:
        """Rate called ``name``; ValueError names those that these weights serve, if it is none."""
        if name not in self.rates:
            known = any(name == rate.name for rate in RATES)
            raise ValueError(
                f"got rate {name!r}, {'one of the paper, not' if known else 'not one'} of these "
                f"weights; expected one of {', '.join(self.rates)}"
            )
        return get_rate(name)

    @property
    def model_id(self) -> int:
        """16-bit id of the codebooks; stored in each file, checked before decoding."""
        return self.conditioner.fingerprint()

    def encode(self, image: Image.Image, rate: str, rounds: int | None = None) -> Tensor:
        """Indices (1,h,w) int64 of one PIL image, its edges repeated up to the rate's stride.

        ``rounds`` of closed-loop refinement (see ``refinement``); 0 = the paper's nearest codes.
        """
        served = self.rate(rate)
        rounds = default_rounds(rate) if rounds is None else rounds
        padded = pad_to_multiple(image_to_tensor(image), served.stride)
        device, dtype = self._execution_device, self.autoencoder.dtype
        with torch.no_grad():
            latents = encode_image(self.autoencoder, padded.to(device, dtype), self.tiling)
            return refine(self.conditioner, latents, rate, rounds)

    def compress(
        self,
        image: Image.Image | list[Image.Image],
        caption: str | list[str] = "",
        rate: str = "0.0019",
        rounds: int | None = None,
    ) -> bytes | list[bytes]:
        """Compress one PIL image or a list, of any size and mode, to the bytes of `.perco` files.

        ``rounds``: see ``encode``; more take longer, and move the size a little with a prior.
        Raises ValueError for an unknown rate, a caption over 65,535 bytes, or lists that differ
        in length.
        """
        if isinstance(image, (list, tuple)):
            captions = [caption] * len(image) if isinstance(caption, str) else list(caption)
            if len(captions) != len(image):
                raise ValueError(
                    f"got {len(captions)} captions for {len(image)} images; pass one for each"
                )
            pairs = zip(image, captions, strict=True)
            return [self.compress(i, c, rate, rounds) for i, c in pairs]
        indices = self.encode(image, rate, rounds)[0].cpu().numpy()
        width, height = _upright_size(image)
        return pack(
            PercoFile(
                rate=self.rate(rate),
                width=width,
                height=height,
                caption=caption,
                indices=indices,
                model_id=self.model_id,
            )
        )

    def decompress(
        self,
        data: bytes | list[bytes],
        num_inference_steps: int = 20,
        guidance_scale: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        seed: int | list[int] = 0,
        anchor: float = DEFAULT_ANCHOR,
        temperature: float | None = None,
    ) -> Image.Image | list[Image.Image]:
        """Paint the photo (or photos) back from the bytes of `.perco` files.

        Args:
            data: one file's bytes or a list; files of equal padded size share U-Net calls.
            num_inference_steps: denoising steps; 20 is usual, 5 are nearly as good above 0.05 bpp.
            guidance_scale: weight of the caption; 1 = off and twice as fast. None for this and
                ``temperature``: what suits these weights.
            generator: CPU generator(s), instead of ``seed``.
            temperature: scale of the first noise; below 1 the dice decide less: smoother, nearer
                to the original in PSNR, poorer in texture.
            anchor: in [0,1], how firmly coarse colours are held to what the bits imply; weights
                without a condition decoder (as in the paper) imply nothing, so it has no effect.
            seed: one for all, or one per file; the same seed gives the same picture.
        Raises:
            BitstreamError: not a `.perco` file of these weights, or damaged.
        """
        single = not isinstance(data, (list, tuple))
        files = [unpack(d, self.model_id) for d in ([data] if single else data)]
        for file in files:
            self.rate(file.rate.name)
        seeds = generator if generator is not None else seed
        seeds = list(seeds) if isinstance(seeds, (list, tuple)) else [seeds] * len(files)
        if len(seeds) != len(files):
            raise ValueError(f"got {len(seeds)} seeds for {len(files)} files; pass one for each")
        defaults = self.config
        guidance_scale = defaults.guidance_scale if guidance_scale is None else guidance_scale
        temperature = defaults.temperature if temperature is None else temperature
        images: list[Image.Image | None] = [None] * len(files)
        for group in group_by_size(files):
            decoded = self._decode_group(
                [files[i] for i in group],
                [seeds[i] for i in group],
                num_inference_steps,
                guidance_scale,
                anchor,
                temperature,
            )
            for i, image in zip(group, decoded, strict=True):
                images[i] = image
        return images[0] if single else images

    __call__ = decompress

    @torch.no_grad()
    def condition(self, file: PercoFile) -> Tensor:
        """Local condition (1,C,h',w') that a file's indices decode to."""
        device = self._execution_device
        return self.conditioner.decode(
            torch.from_numpy(file.indices)[None].to(device), file.rate.name
        )

    @torch.no_grad()
    def _decode_group(self, files, seeds, steps, guidance_scale, anchor, temperature):
        device, dtype = self._execution_device, self.unet.dtype
        condition = torch.cat([self.condition(file) for file in files]).to(dtype)
        noise = draw_noise((self.autoencoder.config.latent_channels, *condition.shape[-2:]), seeds)
        noise = temperature * noise
        embeddings = embed_captions(
            self.tokenizer, self.text_encoder, [file.caption for file in files] + [""]
        )
        rate_ids = torch.tensor([RATES.index(file.rate) for file in files], device=device)
        with self.progress_bar(total=steps) as bar:
            for step in denoise(
                self.unet,
                self.scheduler,
                noise.to(device, dtype),
                condition,
                embeddings[:-1],
                embeddings[-1:],
                rate_ids,
                steps,
                guidance_scale,
                self.conditioner.estimate(condition),
                anchor,
                self.tiling,
            ):
                latents = step.latents
                bar.update()
        images = []
        for file, one in zip(files, latents, strict=True):
            one = one[None].to(self.autoencoder.dtype)
            image = decode_latents(self.autoencoder, one, self.tiling)
            images.append(tensor_to_image(image[0, :, : file.height, : file.width]))
        self.maybe_free_model_hooks()
        return images


def _upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height after EXIF orientation; values 5 to 8 swap them."""
    width, height = image.size
    return (height, width) if image.getexif().get(0x0112, 1) in (5, 6, 7, 8) else (width, height)


def group_by_size(files: list[PercoFile]) -> list[list[int]]:
    """Numbers of files whose latents have the same size, at most BATCH_PIXELS together."""
    by_size: dict[tuple[int, int], list[int]] = {}
    for number, file in enumerate(files):
        h, w = file.indices.shape
        by_size.setdefault((h * file.rate.stride, w * file.rate.stride), []).append(number)
    groups = []
    for (height, width), numbers in by_size.items():
        count = max(1, BATCH_PIXELS // (height * width))
        groups += [numbers[i : i + count] for i in range(0, len(numbers), count)]
    return groups
