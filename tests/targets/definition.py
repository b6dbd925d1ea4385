"""The scores of patches, written out from their definitions: loops over pixels and candidates."""

import numpy as np
import torch

WRAPPED_QUERIES = ("local circular", "equivariant local circular", "equivariant local valid")
WRAPPED_IMAGES = ("local circular", "equivariant local circular")


def window(image, row, column, size, wrapped):
    """The pixels of (C, H, W) around one; beyond the border those of the other side, or zero."""
    channels, height, width = image.shape
    found = np.zeros((channels, size, size))
    for a in range(size):
        for b in range(size):
            i, j = row + a - size // 2, column + b - size // 2
            if wrapped:
                found[:, a, b] = image[:, i % height, j % width]
            elif 0 <= i < height and 0 <= j < width:
                found[:, a, b] = image[:, i, j]
    return found


def border_class(row, column, shape, size):
    """How far a pixel is from each border, as far as its window can tell."""
    (height, width), reach = shape, size // 2
    distances = (row, height - 1 - row, column, width - 1 - column)
    return tuple(min(distance, reach) for distance in distances)


def candidates(kind, row, column, shape, size):
    """The places of training images with which a pixel is compared."""
    height, width = shape
    places = [(i, j) for i in range(height) for j in range(width)]
    if kind.startswith("local"):
        return [(row, column)]
    if kind == "equivariant local circular":
        return places
    if kind == "equivariant local valid":
        m = size // 2
        return [(i, j) for i, j in places if m <= i < height - m and m <= j < width - m]
    own = border_class(row, column, shape, size)
    return [(i, j) for i, j in places if border_class(i, j, shape, size) == own]


def weighted(logits, values):
    weights = np.exp(np.array(logits) - max(logits))
    return np.tensordot(weights / weights.sum(), np.stack(values), axes=1)


def denoised(kind, images, x, alpha, sigma, size):
    """The posterior mean of one image (C, H, W) by training images (N, C, H, W)."""
    if kind == "ideal":
        moved = list(images)
    elif kind == "equivariant":
        _, height, width = x.shape
        shifts = [(i, j) for i in range(height) for j in range(width)]
        moved = [np.roll(image, shift, axis=(1, 2)) for image in images for shift in shifts]
    else:
        return by_patches(kind, images, x, alpha, sigma, size)
    logits = [-((x - alpha * image) ** 2).sum() / (2 * sigma**2) for image in moved]
    return weighted(logits, moved)


def by_patches(kind, images, x, alpha, sigma, size):
    _, height, width = x.shape
    keys = {
        (n, i, j): window(image, i, j, size, kind in WRAPPED_IMAGES)
        for n, image in enumerate(images)
        for i in range(height)
        for j in range(width)
    }
    result = np.zeros_like(x)
    for row in range(height):
        for column in range(width):
            query = window(x, row, column, size, kind in WRAPPED_QUERIES)
            logits, centres = [], []
            for i, j in candidates(kind, row, column, (height, width), size):
                for n, image in enumerate(images):
                    distance = ((query - alpha * keys[n, i, j]) ** 2).sum()
                    logits.append(-distance / (2 * sigma**2))
                    centres.append(image[:, i, j])
            result[:, row, column] = weighted(logits, centres)
    return result


def score(kind, images, x, alpha, sigma, size):
    """The scores at points (B, C, H, W), a coefficient and a patch size a row."""
    rows = zip(x.numpy(), alpha.tolist(), sigma.tolist(), size, strict=True)
    return torch.stack(
        [
            torch.from_numpy((a * denoised(kind, images.numpy(), y, a, s, k) - y) / s**2)
            for y, a, s, k in rows
        ]
    )
