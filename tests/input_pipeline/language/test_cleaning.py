import pytest

from input_pipeline.language.cleaning import clip_text, siglip_text, siglip_training_text


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("  Two PIERS\t\n near a\u00a0 port . ", "two piers near a port ."),
        ("a caf\u00c3\u00a9 &amp;amp;lt; 3 &eacute;", "a caf\u00e9 < 3 \u00e9"),
        ("the harbor\u2019s pier", "the harbor's pier"),
        ("a_b <start_of_text>", "a_b <start_of_text>"),
        (" \n ", ""),
    ],
)
def test_clip_reads_mended_text_in_lower_case(caption, cleaned):
    assert clip_text(caption) == cleaned


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("  Two PIERS, near\ta (small) port . ", "two piers near a small port"),
        ("a high_rise block's &lt;b&gt; roof", "a high rise blocks b roof"),
        ("a t-shaped pier \u2013 \u00abred\u00bb", "a tshaped pier \u2013 \u00abred\u00bb"),
        ("</s>", "s"),
    ],
)
def test_siglip_reads_it_without_punctuation(caption, cleaned):
    assert siglip_text(caption) == cleaned


def test_siglip_was_trained_with_punctuation():
    assert siglip_training_text("Two  PIERS, \u00c9_B .") == "two  piers, \u00c9_b ."
