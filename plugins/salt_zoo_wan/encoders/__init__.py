"""What surrounds the transformer: text, images, videos to latents and back."""
