"""PixelCNN++ written plainly, from its parameters by name: padded copies, concatenations, nothing shared or fused."""

import torch
import torch.nn.functional as F


def log_prob(parameters, image, context, likelihood, num_layers):
    """log p(x | h) from a PixelCNN's named parameters: [B] nats, dropout off."""
    p = dict(parameters)

    def weight(name, transposed=False):
        g, v = p[f"{name}.parametrizations.weight.original0"], p[f"{name}.parametrizations.weight.original1"]
        axes = (0, 2, 3) if transposed else (1, 2, 3)
        return g * v / v.square().sum(axes, keepdim=True).sqrt()

    def down(x, name, stride=1):  # the vertical stream's convolution
        w = weight(name)
        side = w.shape[3] // 2
        return F.conv2d(F.pad(x, (side, side, w.shape[2] - 1, 0)), w, p[f"{name}.bias"], stride)

    def down_right(x, name, stride=1):
        w = weight(name)
        return F.conv2d(F.pad(x, (w.shape[3] - 1, 0, w.shape[2] - 1, 0)), w, p[f"{name}.bias"], stride)

    def act(x):
        return F.elu(torch.cat((x, -x), dim=1))

    def bias(name, size):
        w = p[f"{name}.context.weight"]
        if context.ndim == 2:
            return (context @ w.T)[:, :, None, None]
        r, s = (-(-side // of_image) for side, of_image in zip(context.shape[2:], image.shape[2:], strict=True))
        padded = F.pad(context, (0, -context.shape[3] % s, 0, -context.shape[2] % r))
        spatial = F.conv2d(padded, w.view(len(w), -1, r, s), stride=(r, s))
        return F.interpolate(spatial, size=size, mode="bilinear", align_corners=False)

    def decoded():
        (rows, columns), of = image.shape[2:], "decoder_of_h"
        if context.ndim == 2:
            *features, to_map, conv = (f"{of}.start.{i}" for i in range(1, 12) if f"{of}.start.{i}.bias" in p)
            units = context
            for name in features:
                units = F.elu(units @ weight(name)[:, :, 0, 0].T + p[f"{name}.bias"])
            flat = units @ weight(to_map)[:, :, 0, 0].T + p[f"{to_map}.bias"]
            x = F.elu(flat.view(len(image), -1, rows // 4, columns // 4))
            x = F.conv2d(x, weight(conv), p[f"{conv}.bias"], padding=1)
            x = F.pixel_shuffle(x, 2)
        else:
            r, s = (-(-side // of_image) for side, of_image in zip(context.shape[2:], image.shape[2:], strict=True))
            padded = F.pad(context, (0, -context.shape[3] % s, 0, -context.shape[2] % r))
            cells = (
                F.pixel_unshuffle(padded, r)
                if r == s
                else torch.cat(
                    [
                        padded[:, k : k + 1, a::r, b::s]
                        for k in range(context.shape[1])
                        for a in range(r)
                        for b in range(s)
                    ],
                    dim=1,
                )
            )
            x = F.conv2d(cells, weight(f"{of}.start"), p[f"{of}.start.bias"], padding=1)
        small = context.ndim == 2 or (x.shape[2] <= rows // 2 and x.shape[3] <= columns // 2)
        size = (rows // 2, columns // 2) if small else (rows, columns)
        x = F.interpolate(F.elu(x), size=size, mode="bilinear", align_corners=False)
        x = F.elu(F.conv2d(x, weight(f"{of}.middle"), p[f"{of}.middle.bias"], padding=1))
        first = F.conv2d(x, weight(f"{of}.end"), p[f"{of}.end.bias"], padding=1)
        return x, F.pixel_shuffle(first, 2) if small else first

    def residual(x, conv, name, *skips):
        hidden = conv(act(x), f"{name}.conv_in")
        if skips:
            activated = torch.cat([act(skip) for skip in skips], dim=1)
            hidden = hidden + F.conv2d(activated, weight(f"{name}.skip"), p[f"{name}.skip.bias"])
        a, b = (conv(act(hidden), f"{name}.conv_out") + bias(name, x.shape[2:])).chunk(2, dim=1)
        return x + a * torch.sigmoid(b)

    x = image.to(p["head.bias"].dtype) / 127.5 - 1
    if "level_features.table" in p:
        tables = p["level_features.table"].split(256)
        features = [
            table[channel.long()].permute(0, 3, 1, 2) for table, channel in zip(tables, image.unbind(1), strict=True)
        ]
        x = torch.cat((x, *features), dim=1)
    x = torch.cat((x, torch.ones_like(x[:, :1])), dim=1)
    v = F.pad(down(x, "first_vertical"), (0, 0, 1, 0))[:, :, :-1]
    h = F.pad(down(x, "first_above"), (0, 0, 1, 0))[:, :, :-1]
    h = h + F.pad(down_right(x, "first_left"), (1, 0))[:, :, :, :-1]
    if "decoder_of_h.end.bias" in p:
        context, first = decoded()
        v, h = v + first[:, : v.shape[1]], h + first[:, v.shape[1] :]
    skips = [(v, h)]
    for i in range(3):
        for j in range(num_layers):
            v = residual(v, down, f"encoder.{i}.{j}.0")
            h = residual(h, down_right, f"encoder.{i}.{j}.1", v)
            skips.append((v, h))
        if i < 2:
            v, h = down(v, f"down.{i}.0", 2), down_right(h, f"down.{i}.1", 2)
            skips.append((v, h))
    v, h = skips.pop()
    for i in range(3):
        for j in range(num_layers + (i > 0)):
            skip_v, skip_h = skips.pop()
            v = residual(v, down, f"decoder.{i}.{j}.0", skip_v)
            h = residual(h, down_right, f"decoder.{i}.{j}.1", v, skip_h)
        if i < 2:
            rows, columns = v.shape[2:]
            w = weight(f"up.{i}.0", transposed=True)
            v = F.conv_transpose2d(v, w, p[f"up.{i}.0.bias"], stride=2, output_padding=1)
            v = v[:, :, : 2 * rows, 1 : 2 * columns + 1]
            h = F.conv_transpose2d(h, weight(f"up.{i}.1", transposed=True), p[f"up.{i}.1.bias"], stride=2)
    assert not skips
    params = F.conv2d(F.elu(h), weight("head"), p["head.bias"])
    if "palette.weight" in p:
        factor = F.conv2d(F.elu(h), p["palette.weight"][None, :, None, None], p["palette.bias"])
        before = torch.zeros_like(params)
        for i in range(1, image[0, 0].numel()):
            past = image.flatten(1)[:, :i]
            times = [(past == level).sum(1) for level in range(0, 256, likelihood.step)]
            before[:, :, i // image.shape[3], i % image.shape[3]] = torch.stack(times, dim=1).to(before)
        params = params + factor * torch.log(1 + 8 * before)
    return likelihood.log_prob(params, image).sum(dim=(1, 2))
