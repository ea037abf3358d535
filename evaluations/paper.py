"""Numbers of Nash, Kushman and Williams (2019), to stand beside what is measured."""

# Appendix A, test accuracy in per cent, by config.
ACCURACY = {
    "classifier_mnist": 99.6,
    "classifier_svhn": 93.3,
    "classifier_cifar": 81.6,
    "classifier_affnist_pool": 98.9,
    "classifier_affnist_conv": 98.7,
    "classifier_affnist_fc": 95.0,
}

# Table 1, as ratios that do not depend on the scale of the activations: IM-S / 1NN and IM-NN / 1NN.
RATIOS = {
    "mnist": {"conv1": (0.061, 0.050), "conv2": (0.333, 0.283), "fc3": (1.107, 0.780)},
    "svhn": {"conv1": (0.019, 0.018), "conv2": (0.415, 0.361), "fc3": (1.103, 0.856)},
    "cifar10": {"conv1": (0.098, 0.084), "conv2": (0.673, 0.599), "fc3": (1.400, 1.097)},
}

# Section 5.2, NCE of fc3 on affNIST, nats per image, by the classifier's config.
AFFNIST_NCE = {
    "classifier_affnist_fc": -715.17,
    "classifier_affnist_pool": -704.01,
    "classifier_affnist_conv": -699.55,
}
