"""Metrics of any videos: flickering, motion, saturation, image quality, agreement with the prompt.

Public: `salt_zoo_metrics.change`, `salt_zoo_metrics.saturation`, `salt_zoo_metrics.image_quality`,
`salt_zoo_metrics.clip_score`. The last two need `pip install 'salt-zoo[metrics]'`.
"""
