"""From a recording to features: reading, preprocessing, spectra, and the store that keeps them."""
