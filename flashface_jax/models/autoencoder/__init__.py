"""Image <-> latent: the KL autoencoder, patch cosines, and decoding in tiles."""
