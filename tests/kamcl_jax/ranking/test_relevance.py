"""Lists of relevant items against sets, query by query."""

import numpy as np
import pytest

from kamcl_jax.ranking.relevance import relevance_both_ways

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("num_texts", [1, 6, 30, None])
def test_relevant_items_are_those_with_a_text_of_the_query(num_texts):
    image_of_caption = GENERATOR.permutation(np.repeat(np.arange(9), 1 + np.arange(9) % 4))
    texts = np.arange(len(image_of_caption))
    given = None if num_texts is None else 3 * GENERATOR.integers(0, num_texts, len(texts))
    texts = texts if given is None else given
    texts_of_image = [set(texts[image_of_caption == image]) for image in range(9)]
    captions = [[c for c, text in enumerate(texts) if text in of] for of in texts_of_image]
    images = [[i for i, of in enumerate(texts_of_image) if text in of] for text in texts]
    relevant = relevance_both_ways(image_of_caption, 9, given)
    for way, expected in (("i2t", captions), ("t2i", images)):
        assert relevant[way].counts().tolist() == [len(items) for items in expected]
        query, items = relevant[way].pairs(slice(2, 7))
        assert np.all(np.diff(query) >= 0)
        for place, of_query in enumerate(expected[2:7]):
            assert sorted(items[query == place]) == of_query


def test_a_text_that_all_share_is_listed_once():
    image_of_caption = np.arange(10_000) // 5
    for items in relevance_both_ways(image_of_caption, 2000, np.zeros(10_000)).values():
        for lists in (items.texts_of_query, items.items_of_text):
            assert len(lists.values) <= 10_000
        assert items.counts().min() >= 2000
