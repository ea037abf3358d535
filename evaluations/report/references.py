"""What a report refers to."""

from evaluations.report.page import Section

REFERENCES = (
    "C. Nash, N. Kushman, C. K. I. Williams. Inverting Supervised Representations with Autoregressive Neural Density "
    "Models. AISTATS 2019.",
    "T. Salimans, A. Karpathy, X. Chen, D. P. Kingma. PixelCNN++. ICLR 2017.",
    "Y. Xu, S. Zhao, J. Song, R. Stewart, S. Ermon. A Theory of Usable Information under Computational Constraints. "
    "ICLR 2020.",
    "A. Kolchinsky, B. D. Tracey. Estimating Mixture Entropy with Pairwise Distances. Entropy 19(7), 2017.",
    "A. Kraskov, H. Stögbauer, P. Grassberger. Estimating mutual information. Physical Review E 69, 2004.",
)


def section() -> Section:
    return Section("References", REFERENCES)
