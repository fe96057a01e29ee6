// A time in the browser's time zone.
import { absolute } from "kuber-clock";

export default {
  template: `<time :datetime="new Date(at).toISOString()">{{ absolute(at) }}</time>`,
  props: { at: Number },
  methods: { absolute },
};
