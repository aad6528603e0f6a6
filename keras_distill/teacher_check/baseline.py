"""What a small model makes of the same examples: a teacher is better than that, or none.

accuracy = baseline(seen, known)    # of a logistic regression on shrunken inputs
"""

import numpy as np

from keras_distill.teacher_check.answers import FOR_BASELINE, Seen


def baseline(seen: Seen, known: Seen | None) -> float | None:
    """The accuracy of a logistic regression on simple features; None where there is but one class."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def cut(one: Seen):
        count = min(len(one.features), len(one.truth), FOR_BASELINE)
        return one.features[:count], one.truth[:count]

    learner = LogisticRegression(C=0.1, max_iter=200)
    several = seen.truth.ndim == 2
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(learner) if several else learner)
    x, y = cut(seen if known is None else known)
    if not several and len(np.unique(y)) < 2:
        return None
    if known is None:
        if len(y) < 20 or (not several and np.bincount(y)[np.unique(y)].min() < 3):
            return None
        scoring = None if not several else (lambda m, a, b: float((m.predict(a) == b).mean()))
        return float(cross_val_score(model, x, y, cv=3, scoring=scoring).mean())
    model.fit(x, y)
    x, y = cut(seen)
    return float((model.predict(x) == y).mean())
