// A moment in time, in the reader's zone.
import { absolute } from "kuber-clock";

export default {
  template: `<time :datetime="new Date(at).toISOString()">{{ absolute(at) }}</time>`,
  props: { at: Number },
  methods: { absolute },
};
