"""What curation keeps; light to import."""

from dataclasses import dataclass, field

from flashface_jax.faces.choose import SHARP_ENOUGH


@dataclass(frozen=True)
class ClusterRules:
    """When faces are one person's.

    Attributes:
        min_similarity: least cosine of a face to the person's centre, 0.6 in the paper.
        min_share: least share of a name's photos that show the person. Under some name's photos
            of anyone, two of one stranger are no sign that the name is theirs.
        ambiguous_share: a second person with this share of the first one's photos, or more, makes
            the name ambiguous: nothing says which of them it means.
    """

    min_similarity: float = 0.6
    min_share: float = 0.2
    ambiguous_share: float = 0.75


@dataclass(frozen=True)
class QualityRules:
    """What a person's face must be like.

    Attributes:
        min_face: least width and height of the face in pixels. References are 224x224; at 96 a
            face is enlarged 2.3 times, and hardly more is lost than gained by a further photo.
        min_sharpness: least sharpness, as `faces.sharpness` measures it.
        largest_other: the most that another face may measure, as a share of the person's.
    """

    min_face: int = 96
    min_sharpness: float = SHARP_ENOUGH
    largest_other: float = 0.5


@dataclass(frozen=True)
class Rules:
    """What is kept.

    Attributes:
        clusters: whose face it is.
        quality: what the face must be like.
        min_photos: least number of photos of a person; two make a target and a reference.
    """

    clusters: ClusterRules = field(default_factory=ClusterRules)
    quality: QualityRules = field(default_factory=QualityRules)
    min_photos: int = 2
