// One photo of the gallery: choose the rate and what it is compared with; the slider moves the cut.
for (const photo of document.querySelectorAll(".gallery-photo")) {
  const pair = photo.querySelector(".photo-pair");
  const [ours, above] = pair.querySelectorAll("img");
  const about = photo.querySelector(".about");
  const files = JSON.parse(photo.querySelector("script").textContent);
  const show = () => {
    const rate = photo.querySelector("input[name$=rate]:checked").value;
    const other = photo.querySelector("input[name$=other]:checked").value;
    const file = files[rate];
    ours.src = file.picture;
    ours.alt = file.alt;
    above.src = other === "avif" ? file.avif.picture : files.original;
    above.alt = other === "avif" ? file.avif.alt : "The original photo";
    about.innerHTML = `${file.text} ${other === "avif" ? file.avif.text : ""}`;
  };
  photo.querySelector("input[type=range]").addEventListener("input", (event) => {
    pair.style.setProperty("--at", `${event.target.value}%`);
  });
  photo.addEventListener("change", show);
  show();
}
