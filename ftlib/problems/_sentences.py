"""Sentences that problems on raw text give as examples."""

SENTENCES = (
    "The parcel left the depot at nine and was handed to the courier.",
    "A customer asked for a refund of the second invoice.",
    "The courier rang twice, waited a minute and took the parcel back.",
    "Search finds nothing since the update of the app.",
    "The app crashes when the customer opens a photo.",
    "She changed the email address and the password of her login.",
    "An invoice was charged twice in May and paid back in June.",
    "The second parcel was lost; the shop sent a new one.",
    "Nobody answered the phone, so the customer wrote an email.",
    "The refund arrived after ten days on the old card.",
)
