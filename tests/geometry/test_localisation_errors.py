import numpy as np

from unposed.geometry.localisation_errors import median_errors, recall_within


def test_failures_count_against_recall_and_median() -> None:
    translation, rotation = np.array([0.05, 0.2, np.inf]), np.array([0.5, 6.0, np.inf])
    assert median_errors(translation, rotation) == (0.2, 6.0)
    recall = recall_within(translation, rotation, [(0.1, 1), (0.21, 10), (0.25, 2)])
    np.testing.assert_allclose(recall, [100 / 3, 200 / 3, 100 / 3])
    assert recall_within(translation, rotation, [(0.05, 1), (0.1, 0.5)]) == [0, 0]  # the limits are outside
