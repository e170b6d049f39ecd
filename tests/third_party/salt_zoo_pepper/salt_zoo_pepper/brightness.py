"""A metric: how bright a video is."""


class Brightness:
    direction = "higher"

    def __init__(self, config, zoo):
        pass

    def measure(self, videos):
        return videos.pixels.mean(dim=(1, 2, 3, 4))

    def reduce(self, rows):
        return float(rows.mean())
