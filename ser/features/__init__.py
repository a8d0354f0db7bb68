"""From a recording to features: reading, preprocessing, spectra, and the feature store."""
